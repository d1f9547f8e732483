//! How much of the disk is kept back for what gives room again (G14), and how many messages may be leased on it.
//!
//! A full store is emptied by leases and settles, so these must find room when a publish does not. Segments are created within it. Never here:
//! what is written into them.

use super::Engine;
use super::core::Core;
use crate::error::{Error, Result};
use crate::log::{FileManager, Reserve, Standby};
use crate::state::{OUTSTANDING_LEN, State};

/// What is kept for leases while others fail: a segment for those that fail again, one that follows it while it is not unlinked, and
/// one for leases of other messages.
const AGAIN_LEN: u64 = 3 * SMALL_LEN;
/// The most that it takes in the log to settle a leased message, but for a dead letter's copy and the text of a nack.
const SETTLING_LEN: u64 = 128;
/// As much for a message that was never leased before, with its place in three checkpoints.
const FIRST_LEASE_LEN: u64 = SETTLING_LEN + 3 * OUTSTANDING_LEN;
/// More than is kept back where nothing is outstanding, but for checkpoints and the largest message.
pub(super) const KEPT_LEN_MIN: u64 = 10 * SMALL_LEN;
/// What is kept for copies beside the largest message: as much as leases and acks take of it before the first segment is unlinked.
const COPIES_LEN: u64 = 3 * SMALL_LEN;
/// More than the index of streams grows by at a time.
const INDEX_LEN: u64 = 4 << 20;
/// Smaller segments than this are made only where there is no room for more.
pub(super) const SMALL_LEN: u64 = 64 << 10;

/// A segment takes no more than this part of the room that there is for it, so that what is left never is just too little for one more.
const ROOM_SHARE: u64 = 4;

fn is_full(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::StorageFull
}

/// The length of a segment where `len` would be right and there is room for `room` bytes: a share of the room, but no less than
/// `len_min`. `None` where that does not fit.
fn segment_share(len: u64, len_min: u64, room: u64) -> Option<u64> {
    let share = (room / ROOM_SHARE).max(SMALL_LEN).min(room);
    // seam: segments of full size only
    let len = len.min(share - share % 4096).max(len_min);
    (len <= room).then_some(len)
}

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
        core.new_left = room.saturating_sub(kept.for_leasing_again.saturating_add(SMALL_LEN)) / FIRST_LEASE_LEN;
        core.appender.set_scarce(scarce)
    }

    /// How much must remain of `room` after a segment was created for a command that may use no more than `reserve`.
    pub(super) fn reserved_len(&self, core: &Core, reserve: Reserve, room: u64) -> u64 {
        let kept = self.kept(core, room);
        match reserve {
            Reserve::Keep => {
                kept.for_leasing.saturating_add(COPIES_LEN).saturating_add(self.setup.message_bytes_max as u64)
            }
            // seam: copies use all of the reserve
            Reserve::Copy => kept.for_leasing,
            Reserve::Share => kept.for_settling,
            Reserve::Use => 0,
        }
    }

    /// Whether there is room for a few more entries of the index of streams beside all that is kept: it can wait.
    ///
    /// # Errors
    /// `DiskFull` where there is not.
    pub(super) fn check_room_for_index(&self) -> Result<()> {
        let available = {
            let file_manager = self.file_manager.lock();
            file_manager.available().map_err(|error| self.file_manager_error(&file_manager, error))?
        };
        let kept = self.reserved_len(&self.lock_core(), Reserve::Keep, available);
        // seam: the index takes the room for settling
        if available < kept.saturating_add(INDEX_LEN) {
            return Err(Error::DiskFull);
        }
        Ok(())
    }

    /// Creates the next segment, unless another thread has meanwhile: of `len` bytes, or where that is too much for the room that
    /// there is, a smaller one of at least `len_min`.
    ///
    /// # Errors
    /// `DiskFull` where it would take what is kept back from commands that may use no more than `reserve`.
    pub(super) fn make_standby(&self, len: u64, len_min: u64, reserve: Reserve) -> Result<()> {
        let mut file_manager = self.file_manager.lock();
        self.health.check()?;
        let available = file_manager.available().map_err(|error| self.file_manager_error(&file_manager, error))?;
        let kept = {
            let mut core = self.lock_core();
            let was_scarce = self.note_room(&mut core, available);
            let is_scarce = core.appender.is_scarce();
            let is_taken = !is_scarce || reserve == Reserve::Use;
            if was_scarce && !is_scarce || is_taken && core.appender.has_standby(len_min, reserve) {
                return Ok(());
            }
            Reserve::ALL.map(|reserve| (reserve, self.reserved_len(&core, reserve, available)))
        };
        let mut len = len;
        // For the command that may use the least of the reserve, so that all may use it where there is room.
        for (level, leave) in kept.into_iter().filter(|(level, _)| *level <= reserve) {
            // What a quota or a limit on file sizes refuses counts as free to the file system, and is what is kept back then.
            let len_least = if level == Reserve::Keep { leave.max(len_min) } else { len_min };
            // Where room is short a segment is to be dead soon, and unlinked.
            // seam: long segments where room is short
            let len_most = if level == Reserve::Keep { len } else { len.min(SMALL_LEN.max(len_min)) };
            let mut share = segment_share(len_most, len_min, available.saturating_sub(leave));
            while let Some(size) = share {
                match file_manager.create_standby(size, self.commit.watermark(), level, leave) {
                    Ok(standby) => {
                        self.maintenance.want_room(level > Reserve::Keep);
                        self.take_standby(&mut file_manager, standby);
                        return Ok(());
                    }
                    Err(error) if is_full(&error) => {
                        let half = (size / 2).next_multiple_of(4096);
                        len = half.max(len_min);
                        share = (half >= len_least && half < size).then_some(half);
                    }
                    Err(error) => return Err(self.file_manager_error(&file_manager, error)),
                }
            }
        }
        self.maintenance.want_room(true);
        Err(Error::DiskFull)
    }

    /// Hands a segment that was created to the appender.
    fn take_standby(&self, file_manager: &mut FileManager, standby: Standby) {
        let superseded = {
            let mut core = self.lock_core();
            core.standby_asked = false;
            core.appender.add_standby(standby)
        };
        if let Some(superseded) = superseded {
            file_manager.discard_standby(superseded);
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
        let for_settling = for_leasing_again.saturating_add(AGAIN_LEN);
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
    /// That, and some for leases of what was leased before, should all of them fail again, and of others where there is nothing else to
    /// lease: all other leases leave that.
    for_settling: u64,
    /// That, and as much for leases, so that there is something to settle: copies of messages leave that, and one of them should fit in
    /// what else is kept.
    for_leasing: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimClock;
    use crate::disk::sim::SimDisk;
    use crate::engine::{Begin, GroupInfo, Outgoing, Received, Request, Setup, StreamAt, TopicInfo, Wait};
    use crate::ids::{Expected, WallMs};
    use crate::record::{GroupOptions, TopicOptions};
    use std::sync::Arc;
    use std::time::Duration;

    /// A store with ready messages.
    fn store(clock: &Arc<SimClock>, count: usize) -> (Engine, TopicInfo, GroupInfo) {
        let disk = Arc::new(SimDisk::new(1).attach().unwrap());
        let engine = Engine::open_on(disk, Setup::quiet(1 << 20), Arc::clone(clock) as _).unwrap();
        let topic = engine.open_topic("t", 1, TopicOptions::LEFT_OUT).unwrap();
        let group = engine.open_group(topic, "g", &GroupOptions::LEFT_OUT, Begin::Earliest).unwrap();
        let mut outgoing = Outgoing::default();
        (0..count).for_each(|_| outgoing.add(topic.first, None, std::iter::empty(), b"m", 1 << 20).unwrap());
        engine.publish(&outgoing).unwrap().unwrap();
        (engine, topic, group)
    }

    fn lease(engine: &Engine, topic: TopicInfo, group: &GroupInfo, max: usize) -> usize {
        let mut count = 0;
        let mut each = |received: Received| count += received.stored.count() as usize;
        let request = Request { group: group.id, topic: topic.id, max, wait: Wait::new(engine, Duration::ZERO) };
        engine.receive(request, &crate::sync::Mutex::default(), &mut each).unwrap();
        count
    }

    /// G14: what is leased is kept room for until its lease is over.
    #[test]
    fn leases_that_are_over_need_no_room() {
        let clock = Arc::new(SimClock::new(WallMs(1_800_000_000_000)));
        let (engine, topic, group) = store(&clock, 500);
        assert_eq!(lease(&engine, topic, &group, 500), 500);
        let kept = |room| engine.reserved_len(&engine.lock_core(), Reserve::Share, room);
        let (leased, plenty) = (kept(0), kept(u64::MAX));
        assert_eq!(leased, plenty, "all are leased");
        clock.advance(3_600_000);
        assert_eq!((kept(0), kept(u64::MAX)), (leased - 500 * SETTLING_LEN, plenty), "counted where it decides");
        // Those of later attempts wait for a while once they are over, and count no less while they last.
        assert_eq!(lease(&engine, topic, &group, 500), 500);
        assert_eq!((kept(0), kept(u64::MAX)), (leased, plenty));
        clock.advance(3_600_000);
        assert_eq!(kept(0), leased - 500 * SETTLING_LEN);
    }

    /// G14: the index of streams takes nothing of what is kept.
    #[test]
    fn the_index_waits_where_there_is_no_room_beside_what_is_kept() {
        let disk = SimDisk::new(1);
        let clock = Arc::new(SimClock::new(WallMs(1_800_000_000_000)));
        let engine = Engine::open_on(Arc::new(disk.attach().unwrap()), Setup::quiet(1 << 20), clock).unwrap();
        let options = TopicOptions { streams: true, ..TopicOptions::LEFT_OUT };
        let topic = engine.open_topic("t", 1, options).unwrap();
        let mut outgoing = Outgoing::default();
        outgoing.add(topic.first, Some(b"s"), std::iter::empty(), b"m", 1 << 20).unwrap();
        let stream = StreamAt { id: engine.stream_id(topic.id, topic.first, b"s"), key: b"s" };
        engine.append(stream, Expected::NoStream, &outgoing).unwrap();
        engine.sync().unwrap();
        let used: u64 = disk.files().iter().map(|file| file.len).sum();
        for (capacity, behind) in [(Some(used + INDEX_LEN), 1), (None, 0)] {
            disk.set_capacity(capacity);
            engine.maintain().unwrap();
            assert_eq!(engine.lock_core().view.streams.len(), behind, "{capacity:?}");
        }
    }

    /// G14: no more is leased than can be settled in the room that is known to be there.
    #[test]
    fn leases_are_as_many_as_there_is_room_to_settle() {
        let clock = Arc::new(SimClock::new(WallMs(1_800_000_000_000)));
        let (engine, topic, group) = store(&clock, 500);
        engine.lock_core().leases_left = 7;
        assert_eq!(lease(&engine, topic, &group, 500), 7);
        assert!(engine.lock_core().appender.is_scarce(), "the next one looks at the disk first");
        assert_eq!(lease(&engine, topic, &group, 500), 493, "and finds room");
    }
}
