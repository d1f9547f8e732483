//! How much of the disk is kept back for what gives room again (G14), and how many messages may be leased on it.
//!
//! A full store is emptied by leases and settles, so these must find room when a publish does not. Never here: the creation of files.

use super::Engine;
use super::core::Core;
use crate::log::Reserve;
use crate::state::{OUTSTANDING_LEN, State};

/// What is kept back however little is outstanding, in bytes.
pub(super) const RESERVED_LEN_MIN: u64 = 128 << 10;
/// The most that it takes in the log to settle a leased message, but for a dead letter's copy and the text of a nack.
const SETTLING_LEN: u64 = 128;
/// As much for a message that was never leased before, with its place in three checkpoints.
const FIRST_LEASE_LEN: u64 = SETTLING_LEN + 3 * OUTSTANDING_LEN;
/// Smaller segments than this are made only where there is no room for more.
pub(super) const SMALL_LEN: u64 = 64 << 10;

impl Engine {
    /// Takes note of the room on the disk: for how many more leases there is enough to settle them, and whether texts of nacks have
    /// room; and where what settles may need all of it, nothing else is appended, not even to the segment that grows. Returns whether
    /// that was so before.
    pub(super) fn note_room(&self, core: &mut Core, available: u64) -> bool {
        // The rest of the segment that grows is not counted: nothing but that segment can have it, and it may live long.
        let room = available.saturating_add(core.appender.standby_len());
        let kept = self.kept(core, room);
        // seam: a publish takes the room for settling
        let scarce = room < kept.for_settling;
        core.texts_fit = room >= kept.for_leasing;
        core.leases_left = room.saturating_sub(kept.for_settling) / FIRST_LEASE_LEN;
        core.again_left = room.saturating_sub(kept.for_leasing_again) / SETTLING_LEN;
        core.appender.set_scarce(scarce)
    }

    /// How much must remain of `room` after a segment was created for a command that may use no more than `reserve`.
    pub(super) fn reserved_len(&self, core: &Core, reserve: Reserve, room: u64) -> u64 {
        let kept = self.kept(core, room);
        match reserve {
            Reserve::Keep => {
                kept.for_leasing.saturating_add(SMALL_LEN).saturating_add(self.setup.message_bytes_max as u64)
            }
            // seam: copies use all of the reserve
            Reserve::Copy => kept.for_leasing,
            Reserve::Share => kept.for_settling,
            Reserve::Use => 0,
        }
    }

    /// How much of `room` is for what. A lease that is over needs nothing: nobody can settle its message before it is leased again.
    fn kept(&self, core: &Core, room: u64) -> Kept {
        let state = &core.view.state;
        let least = SMALL_LEN.saturating_add(core.checkpoint.room(state.outstanding_len()));
        let all = state.lease_count().saturating_mul(SETTLING_LEN);
        // They are looked through only where that decides.
        // seam: leases that are over keep the room for settling
        let leased = if room / 4 > least.saturating_add(all) { all } else { self.live_len(state) };
        let for_leasing_again = least.saturating_add(leased);
        let for_settling = for_leasing_again.saturating_add(RESERVED_LEN_MIN);
        Kept { for_leasing_again, for_settling, for_leasing: for_settling.saturating_add(least) }
    }

    fn live_len(&self, state: &State) -> u64 {
        state.live_lease_count(self.now().mono).saturating_mul(SETTLING_LEN)
    }
}

/// How much of the room is kept, each with those before it.
struct Kept {
    /// For the settling of all that is leased, checkpoints, and what the file system itself needs: leases of what was leased before leave
    /// that.
    for_leasing_again: u64,
    /// That, and some for leases of what was leased before, should all of them fail again: leases of other messages leave that.
    for_settling: u64,
    /// That, and as much for leases, so that there is something to settle: copies of messages leave that, and one of them should fit in
    /// what else is kept.
    for_leasing: u64,
}
