//! Streams of events: appends, reads, snapshots, and the index that says where a stream ends.
//!
//! Never here: the numbering itself (the state decides that).

pub(super) mod facts;
pub(super) mod index_entry;
pub(super) mod opened;
pub(super) mod snapshots;
pub(super) mod stream_index;
pub(super) mod streams;
