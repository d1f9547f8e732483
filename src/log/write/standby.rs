//! The file that is next: made before it is needed, for making one takes system calls.
//!
//! Never here: making it, and beginning to append to it.

use crate::disk::Tail;
use crate::ids::FileNumber;
use crate::log::write::reserve::Reserve;

/// A file with a durable header and name, to which nothing has been appended.
#[derive(Debug)]
pub(crate) struct Standby {
    pub(crate) number: FileNumber,
    pub(crate) salt: u64,
    pub(crate) len: u64,
    /// For whom it was made: appends that may use less of the reserve do not get in.
    pub(crate) reserve: Reserve,
    pub(crate) tail: Box<dyn Tail>,
}
