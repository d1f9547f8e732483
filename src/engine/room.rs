//! What part of the reserve a frame may use.
//!
//! Where room is scarce (G14), what adds to the store is refused first, then copies of messages, then leases. What settles never is,
//! for only that gives room back. Never here: how large the reserve is (`reserve`).

use crate::log::{Parts, Reserve};
use crate::record::{Record, Room};
use crate::state::{Command, State};

/// What part of the reserve the frame of a command may use. A transaction that settles at least the bytes that it adds may use what
/// leases may: so a full store can be emptied by those that consume and produce.
pub(super) fn reserve_of(command: &Command<'_>, records: &[Record], parts: Parts<'_>, state: &State) -> Reserve {
    let reserve = reserve_for(records, state);
    if matches!(command, Command::Lease { new_last: Some(_), .. }) {
        return Reserve::Use;
    }
    let added = || parts.bytes.len() as u64 + records.iter().map(Record::value_len).sum::<u64>();
    // seam: a transaction that settles nothing uses the reserve
    let pays = matches!(command, Command::Transaction { settled_len: settled @ 1.., .. } if *settled >= added());
    // seam: a transaction that settles cannot use the reserve
    if pays { reserve.max(Reserve::Share) } else { reserve }
}

/// A frame may use what all of its records may.
fn reserve_for(records: &[Record], state: &State) -> Reserve {
    let mut is_move = false;
    let rooms = records.iter().map(|record| {
        // A notice takes the room of its move, which comes right before it.
        let follows_move = std::mem::replace(&mut is_move, matches!(record, Record::DeadLettered { .. }));
        let is_notice = follows_move && matches!(record, Record::Published { .. });
        // seam: a notice takes room of its own
        if is_notice { Room::Moves } else { room(record, state) }
    });
    match rooms.min().unwrap_or(Room::Settles) {
        Room::Adds => Reserve::Keep,
        Room::Moves => Reserve::Copy,
        Room::Leases => Reserve::Share,
        Room::Settles => Reserve::Use,
    }
}

/// What room a record may use. A cursor gives room back only where it moves on.
fn room(record: &Record, state: &State) -> Room {
    // seam: a cursor that adds takes the room for settling
    if let Record::CursorSet { name, hold: Some(hold), .. } = record
        && !state.moves_on(name, *hold)
    {
        return Room::Adds;
    }
    record.room()
}
