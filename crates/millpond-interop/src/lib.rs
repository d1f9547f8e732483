//! Nothing: the tests and the example are in folders of their own.
