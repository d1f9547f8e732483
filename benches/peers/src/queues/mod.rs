//! Every queue that is measured, each in a file of its own behind [`crate::queue::Queue`].

mod beanstalkd;
mod fjall;
mod millpond;
mod nats;
mod numbers;
mod okaywal;
mod queue_file;
mod raft_engine;
mod redb;
mod redis;
mod server;
mod sled;
mod sqlite;
mod walrus;
mod yaque;

use crate::queue::Peer;
use std::ffi::OsString;
use std::path::Path;

/// The name of the queue that the others are compared with.
pub(crate) const SUBJECT: &str = "millpond";

/// All of them, present here or not.
pub(crate) fn all() -> Vec<Peer> {
    vec![
        millpond::PEER,
        yaque::PEER,
        walrus::PEER_MAPPED,
        walrus::PEER_FD,
        queue_file::PEER,
        okaywal::PEER,
        raft_engine::PEER,
        sled::PEER,
        redb::PEER,
        fjall::PEER,
        sqlite::PEER,
        redis::PEER,
        nats::PEER,
        beanstalkd::PEER,
    ]
}

/// The environment in which a process may use any of them on `dir`: walrus takes its directory from there.
pub(crate) fn environment(dir: &Path) -> [(&'static str, OsString); 2] {
    [("WALRUS_DATA_DIR", dir.into()), ("WALRUS_QUIET", "1".into())]
}
