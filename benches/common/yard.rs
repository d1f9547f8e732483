//! A pond for criterion's loops: replaced, untimed, before it takes too much of the disk.
//!
//! Never here: what is timed.

use super::pond::Pond;
use super::{Arena, machine, pick, time};
use millpond::Durability;
use std::time::Duration;

/// The most that is published between two looks at the clock.
const CHUNK_BYTES: u64 = 128 << 20;
/// A store with more log than this is replaced.
const LOG_BYTES_MAX: u64 = 2 << 30;

pub(crate) struct Yard {
    /// Dropped before the arena, whose directory it writes to.
    pond: Option<Pond>,
    arena: Arena,
    level: Durability,
}

impl Yard {
    pub(crate) fn new(level: Durability) -> Self {
        Self { pond: None, arena: Arena::new(), level }
    }

    /// A store that is not too large.
    pub(crate) fn pond(&mut self) -> &Pond {
        if let Some(old) = self.pond.take_if(|pond| pond.log_end() > LOG_BYTES_MAX) {
            old.remove();
        }
        self.pond.get_or_insert_with(|| {
            machine::warm_memory();
            let pond = Pond::new(&self.arena, self.level);
            pond.ripen();
            pond
        })
    }

    /// Runs `iters` iterations of `work`, in chunks that fit the disk, and returns the time they took. Each is to publish
    /// `messages` messages of `len` bytes to the topic, and this checks that they are there.
    pub(crate) fn publish(
        &mut self,
        iters: u64,
        messages: u64,
        len: usize,
        mut work: impl FnMut(&Pond, u64),
    ) -> Duration {
        let chunk = (CHUNK_BYTES / (messages * len as u64)).max(1);
        self.chunks(iters, chunk, |pond, count| {
            let before = pond.published();
            let elapsed = time(|| work(pond, count));
            assert_eq!(pond.published() - before, count * messages, "every message is there");
            elapsed
        })
    }

    /// Runs `iters` iterations in chunks; `run` gets the count of each and returns the time it took.
    pub(crate) fn chunks(&mut self, iters: u64, chunk: u64, mut run: impl FnMut(&Pond, u64) -> Duration) -> Duration {
        let mut left = iters;
        let mut elapsed = Duration::ZERO;
        while left > 0 {
            let count = left.min(chunk);
            elapsed += run(self.pond(), count);
            left -= count;
        }
        elapsed
    }
}

/// How long criterion measures each benchmark that writes much.
pub(crate) fn short_measure() -> Duration {
    pick(Duration::from_secs(3), Duration::from_millis(1))
}
