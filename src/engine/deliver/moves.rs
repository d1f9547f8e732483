//! Moving exhausted messages to the dead letters, when a consumer asks and meets them.
//!
//! A few at a time, so that a call that looks for work does not copy all that has died first. Where there is no room for a copy they stay
//! where they are, and others flow past them. Never here: deciding what is delivered.

use crate::engine::Engine;
use crate::engine::deliver::notices::Moved;
use crate::error::{ErrorKind, Result};
use crate::ids::{GroupId, MonoMs, Offset, PartitionId};
use crate::log::Parts;
use crate::state::{Command, Rejection};
use crate::sync::atomic::Ordering::Relaxed;
use crate::view::ViewHolder;

/// How many dead letters a call that does not wait copies at most before it looks for something to deliver.
const MOVES_MAX: u32 = 16;
/// And of how many bytes, but for the last one.
const MOVED_BYTES_MAX: usize = 1 << 20;
/// How long exhausted messages are skipped once there was no room for one of them.
const MOVES_REST_MS: u64 = 1_000;

/// The dead letters that one receive has copied since it looked last for something to deliver.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Moves {
    count: u32,
    bytes: usize,
}

impl Moves {
    pub(in crate::engine) fn are_enough(self) -> bool {
        // seam: one receive moves all that is exhausted
        self.count >= MOVES_MAX || self.bytes >= MOVED_BYTES_MAX
    }
}

impl Engine {
    /// Exhausted messages are skipped until then.
    pub(in crate::engine) fn moves_rest_until(&self) -> MonoMs {
        MonoMs(self.moves_rest_until.load(Relaxed))
    }

    /// There is no room for a dead letter, or no way to read it just now: others flow past what is exhausted, for a while.
    fn rest_moves(&self) {
        self.moves_rest_until.store(self.clock.monotonic().0.saturating_add(MOVES_REST_MS), Relaxed);
    }

    /// Moves a message that used up its attempts to the dead letters, if it still has to be moved.
    pub(in crate::engine) fn give_up(
        &self,
        (group, partition, offset): (GroupId, PartitionId, Offset),
        moves: &mut Moves,
    ) -> Result<()> {
        let stored = match self.fetch(partition, offset) {
            Ok(stored) => stored,
            Err(error) if error.kind() == ErrorKind::Retry => {
                self.rest_moves();
                return Ok(());
            }
            Err(error) => return self.postpone(group, partition, offset).and(Err(error)),
        };
        let moved = Moved { at: (group, partition, offset), stored: &stored, nth: 0, end: None };
        let command = |notice| Command::GiveUp { group, partition, offset, moving: moved.moving(notice) };
        match self.submit_move(&moved, command) {
            Ok(Ok(_)) => {
                *moves = Moves { count: moves.count + 1, bytes: moves.bytes + stored.len() };
                Ok(())
            }
            Ok(Err(Rejection::Stale)) => Ok(()),
            Ok(Err(rejection)) => Err(self.rejected(rejection)),
            // Its copy does not fit: it stays where it is until there is room.
            Err(error) if error.kind() == ErrorKind::Retry => {
                self.rest_moves();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Lets an exhausted message that cannot be read wait, so that others flow past it.
    fn postpone(&self, group: GroupId, partition: PartitionId, offset: Offset) -> Result<()> {
        match self.submit(&Command::Postpone { at: (group, partition, offset) }, Parts::default(), |_, _| ()) {
            Ok(Ok(()) | Err(Rejection::Stale)) => Ok(()),
            Ok(Err(rejection)) => Err(self.rejected(rejection)),
            Err(error) if error.kind() == ErrorKind::Retry => {
                self.rest_moves();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
