//! Interleavings: threads of the real engine on a simulated disk, with a scheduler that chooses who goes on at every lock,
//! wait and atomic.
//!
//! Empty unless built with `--cfg millpond_shuttle`, which `.ci/shuttle` does. `MILLPOND_SHUTTLE` sets the schedules for each test
//! and each of two schedulers, `MILLPOND_SHUTTLE_SEED` the seed of both.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and says what it counted"
)]
#![allow(clippy::print_stderr, reason = "a failed run says how it is repeated")]

#[cfg(millpond_shuttle)]
mod asking;
#[cfg(millpond_shuttle)]
mod bounds;
#[cfg(millpond_shuttle)]
mod closing;
#[cfg(millpond_shuttle)]
#[path = "../common/counts.rs"]
mod counts;
#[cfg(millpond_shuttle)]
mod durable;
#[cfg(millpond_shuttle)]
mod rig;
#[cfg(millpond_shuttle)]
mod streams;
#[cfg(millpond_shuttle)]
mod telling;
#[cfg(millpond_shuttle)]
mod waking;

#[cfg(not(millpond_shuttle))]
#[test]
fn nothing_is_tested_in_this_build() {
    println!("SKIPPED: interleavings are tested by .ci/shuttle, in a build of its own");
}
