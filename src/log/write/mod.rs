//! Changing the log: the appender, syncs, and the file manager, which creates, truncates and unlinks files and writes `STORE`.
//!
//! Only a finished recovery (`recover`) creates an appender.

pub(in crate::log) mod appender;
pub(in crate::log) mod class_file;
pub(in crate::log) mod file_manager;
mod frame_len;
mod index_file;
pub(in crate::log) mod reserve;
mod room;
pub(in crate::log) mod slots;
pub(in crate::log) mod standby;
pub(in crate::log) mod sync;
