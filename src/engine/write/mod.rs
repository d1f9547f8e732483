//! What goes into the log: publishing, transactions, cursors, and the syncs that make it durable.
//!
//! Never here: handing out, and what runs in the background.

pub(super) mod commit;
pub(super) mod cursors;
#[cfg(feature = "async")]
pub(super) mod durable;
pub(super) mod publish;
pub(super) mod topic_room;
pub(super) mod transaction;
