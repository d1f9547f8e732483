//! The bytes of records.
