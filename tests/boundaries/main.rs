//! The edges of the public API: the smallest and the greatest that is allowed, and one beyond; and misuse, which gets a
//! typed error that names the thing and changes nothing.

mod limits;
mod misuse;
mod sizes;
mod telling;

use millpond::{Delivery, Group, Stats, Store, Topic};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Long enough that a test which waits so long has failed.
const LONG: Duration = Duration::from_secs(20);

/// A store in a directory that lives as long as this.
struct Fixture {
    dir: TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path().join("store")).expect("it opens");
        Self { dir, store }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn topic(&self, name: &str) -> Topic {
        self.store.topic(name).open().expect("the topic opens")
    }

    fn stats(&self) -> Stats {
        self.store.stats().expect("there are stats")
    }

    /// The store closed and opened again.
    fn reopened(self) -> Self {
        let path = self.path();
        self.store.close().expect("it closes");
        drop(self.store);
        Self { store: Store::open(path).expect("it opens again"), dir: self.dir }
    }
}

fn group(topic: &Topic) -> Group {
    topic.group("group").open().expect("the group opens")
}

#[track_caller]
fn receive(group: &Group) -> Delivery {
    group.receive(LONG).expect("it receives").expect("there is a message")
}

/// The end of every partition of a topic.
fn ends(store: &Store, topic: &str) -> Vec<u64> {
    let stats = store.stats().expect("there are stats");
    let found = stats.topics.iter().find(|candidate| candidate.name == topic).expect("the topic is there");
    found.partitions.iter().map(|partition| partition.end).collect()
}

/// Every file below a directory, with its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(dir).expect("it can be listed");
    entries
        .map(|entry| entry.expect("it can be listed").path())
        .map(|path| (path.clone(), std::fs::read(&path).expect("it can be read")))
        .collect()
}

/// Checks the kind of an error and that its message names everything that it should.
macro_rules! assert_error {
    ($result:expr, $kind:pat, $($part:expr),+ $(,)?) => {{
        let error = match $result {
            Ok(_) => panic!("{} succeeded", stringify!($result)),
            Err(error) => error,
        };
        assert!(matches!(error, $kind), "another kind of error: {error:?}");
        let message = error.to_string();
        $(assert!(message.contains(&$part.to_string()), "{:?} does not name {:?}", message, $part);)+
    }};
}
pub(crate) use assert_error;
