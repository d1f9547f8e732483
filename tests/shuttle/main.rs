//! Interleavings: threads of the real engine on a simulated disk, with a scheduler that chooses who goes on at every lock,
//! wait and atomic.
//!
//! Empty unless built with `--cfg millpond_shuttle`, which `.ci/shuttle` does.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and says what it left out"
)]

#[cfg(not(millpond_shuttle))]
#[test]
fn nothing_is_tested_in_this_build() {
    println!("SKIPPED: interleavings are tested by .ci/shuttle, in a build of its own");
}
