//! Inputs that once broke a promise, each by name.
