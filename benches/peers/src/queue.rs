//! What every queue under test can do, and what it says about itself. Never here: a particular queue.

use crate::payload::Tally;
use crate::workload::Workload;
use std::error::Error;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Any failure of a peer; the run that hit it shows the text.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;
/// The result of everything here.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// How a queue is opened: what a publish or acknowledgement that returned must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The death of the process.
    Process,
    /// The loss of power.
    Power,
}

/// An open queue with one topic and one consumer group, or what comes nearest to that in the peer.
///
/// A receive takes the payload out to `sink` first and acknowledges it then, as the peer does it by default: whether that survives kill -9
/// is one of its [`Facts`].
pub(crate) trait Queue: Send + Sync {
    /// Publishes one message so that it survives kill -9.
    fn publish(&self, payload: &[u8]) -> Result<()>;

    /// Publishes many with the peer's means for that, surviving kill -9.
    fn publish_batch(&self, payloads: &[&[u8]]) -> Result<()>;

    /// Publishes one message so that it survives power loss. Called from many threads at once.
    fn publish_durable(&self, payload: &[u8]) -> Result<()>;

    /// As [`Queue::publish_batch`], surviving power loss. A queue opened in [`Mode::Power`] does that anyway, unless it says otherwise.
    fn publish_batch_durable(&self, payloads: &[&[u8]]) -> Result<()> {
        self.publish_batch(payloads)
    }

    /// Receives and acknowledges one message; false where none waits.
    fn receive_ack(&self, sink: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// Receives and acknowledges up to `max` messages at once, and says how many.
    fn receive_ack_batch(&self, max: usize, sink: &mut dyn FnMut(&[u8])) -> Result<usize>;

    /// As [`Queue::receive_ack_batch`], waiting up to `wait` for the first. A queue that cannot wait is asked again and again.
    fn receive_ack_wait(&self, max: usize, wait: Duration, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        let deadline = Instant::now() + wait;
        loop {
            let count = self.receive_ack_batch(max, sink)?;
            if count > 0 || Instant::now() >= deadline {
                return Ok(count);
            }
            std::thread::yield_now();
        }
    }

    /// Closes it as its authors want it closed. Opening the directory again is the entry's `open`.
    fn close(self: Box<Self>) -> Result<()>;

    /// Takes out everything that is left, to check it.
    fn drain(self: Box<Self>) -> Result<Tally> {
        let mut tally = Tally::default();
        while self.receive_ack_batch(1000, &mut |payload| tally.add(payload))? > 0 {}
        self.close()?;
        Ok(tally)
    }
}

/// One queue that can be measured.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    /// Its name on the command line and in the tables.
    pub(crate) name: &'static str,
    /// What it says about itself.
    pub(crate) facts: fn() -> Facts,
    /// Opens or reopens it in a directory.
    pub(crate) open: fn(&Path, Mode) -> Result<Box<dyn Queue>>,
    /// Whether it can run here: a server's program may be missing.
    pub(crate) is_present: fn() -> bool,
}

/// What is true of a queue, next to its figures.
pub(crate) struct Facts {
    /// The version in use.
    pub(crate) version: String,
    /// Whether a publish that returned in mode [`Mode::Process`] survives kill -9.
    pub(crate) survives_kill9: Survives,
    /// Whether it survives power loss in that mode.
    pub(crate) survives_power_loss: Survives,
    /// Whether a publish that returned in mode [`Mode::Power`] survives power loss.
    pub(crate) survives_power_loss_when_asked: Survives,
    /// What a consumer can acknowledge.
    pub(crate) acknowledgement: Acknowledgement,
    /// Whether an acknowledgement that returned survives kill -9.
    pub(crate) acknowledgement_survives_kill9: Survives,
    /// Whether it survives power loss.
    pub(crate) acknowledgement_survives_power_loss: Survives,
    /// How it is used here, and what a reader should know.
    pub(crate) note: &'static str,
    /// The workloads that it cannot run, each with the reason.
    pub(crate) cannot: &'static [(Workload, &'static str)],
    /// Why it is the better one where it is.
    pub(crate) advantages: &'static [(Workload, &'static str)],
}

impl Facts {
    /// Why this workload is left out, if it is.
    pub(crate) fn reason_against(&self, workload: Workload) -> Option<&'static str> {
        reason(self.cannot, workload)
    }

    /// Why it is better than millpond at this workload, if that is known.
    pub(crate) fn advantage(&self, workload: Workload) -> Option<&'static str> {
        reason(self.advantages, workload)
    }
}

fn reason(reasons: &[(Workload, &'static str)], workload: Workload) -> Option<&'static str> {
    reasons.iter().find(|(found, _)| *found == workload).map(|(_, reason)| *reason)
}

/// Whether something survives.
#[derive(Clone, Copy)]
pub(crate) enum Survives {
    /// Always, by the peer's own word and code.
    Yes,
    /// Not.
    No,
    /// Only so far.
    Partly(&'static str),
}

impl fmt::Display for Survives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Partly(how) => how,
        })
    }
}

/// What a consumer can acknowledge.
#[derive(Clone, Copy)]
pub(crate) enum Acknowledgement {
    /// Each message by itself, in any order; until then it is lent to one consumer.
    Leased,
    /// Each message by itself, in any order; nothing but the caller's care keeps it from a second consumer until then.
    PerMessage,
    /// A position: everything before it.
    CursorOnly,
    /// Nothing.
    None,
}

impl fmt::Display for Acknowledgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leased => "per message, leased",
            Self::PerMessage => "per message, no lease",
            Self::CursorOnly => "cursor only",
            Self::None => "none",
        })
    }
}

/// The version of a crate as this crate's lock file has it.
pub(crate) fn locked_version(name: &str) -> String {
    let lock = include_str!("../Cargo.lock");
    let mut lines = lock.lines().skip_while(|line| *line != format!("name = \"{name}\""));
    let version = lines.nth(1).and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    version.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::locked_version;

    #[test]
    fn versions_come_from_the_lock_file() {
        assert!(locked_version("sled").starts_with("0.34."));
        assert_eq!(locked_version("no-such-crate"), "unknown");
    }
}
