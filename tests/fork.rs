//! A forked child has the memory of a store and none of its right to it.

#![allow(unsafe_code)] // A fork cannot be had without.

use millpond::{Error, Store};

#[test]
fn a_forked_child_is_refused_and_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path().join("s")).expect("it opens");
    let topic = store.topic("t").open().expect("it opens");
    topic.publish("before").expect("it publishes");
    // SAFETY: the child calls only what checks for a fork before it takes any lock, and leaves without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused =
            matches!(topic.publish("in the child"), Err(Error::Forked)) && matches!(store.stats(), Err(Error::Forked));
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "the child was not refused");
    topic.publish("after").expect("the parent goes on");
    assert_eq!(store.stats().expect("it counts").topics[0].published, 2);
}
