//! Notices of dead letters: what the move of a message publishes to the topic that its group names for them.
//!
//! A notice is in the frame of its move, so there is one for each move and none without. Most groups ask for none: the state says so when
//! a move is due, and only then one is made. Never here: where notices are asked for (the state knows).

use crate::engine::{Engine, Outgoing};
use crate::error::Result;
use crate::ids::{GroupId, Lsn, Offset, PartitionId};
use crate::limits::FRAME_LEN_MAX;
use crate::record::FailureCause;
use crate::record::message::{MessageView, key_hash};
use crate::state::{Command, Dying, Moving, Notice, Rejection, capped};
use crate::view::Stored;
use std::sync::Arc;

/// The headers of a notice. A message with the first of them is one.
const ID: &str = "dead-letter-id";
const TOPIC: &str = "dead-letter-topic";
const GROUP: &str = "dead-letter-group";
const CAUSE: &str = "dead-letter-cause";
const ATTEMPTS: &str = "dead-letter-attempts";
const TIME: &str = "dead-letter-time-ms";

/// A message that a command may move to the dead letters.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Moved<'a> {
    pub(in crate::engine) at: (GroupId, PartitionId, Offset),
    pub(in crate::engine) stored: &'a Stored,
    pub(in crate::engine) nth: u32,
    /// How the command ends its last attempt; `None` if that has ended.
    pub(in crate::engine) end: Option<(FailureCause, &'a str)>,
}

impl<'a> Moved<'a> {
    pub(in crate::engine) fn moving(&self, notice: Notice) -> Moving {
        Moving { published: self.stored.publication(), notice }
    }

    fn part(&self) -> &'a [u8] {
        self.stored.part(self.nth)
    }
}

/// The notice of a move.
pub(in crate::engine) struct MoveNotice {
    /// What the state is told of it.
    pub(in crate::engine) notice: Notice,
    /// If there is one.
    message: Option<Outgoing>,
}

impl MoveNotice {
    pub(in crate::engine) fn none(notice: Notice) -> Self {
        Self { notice, message: None }
    }

    /// The parts of a frame for the move: the copy, and the notice if there is one.
    pub(in crate::engine) fn parts_of_move<'a>(&'a self, copy: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        [copy].into_iter().chain(self.message.as_ref().map(|message| message.parts().bytes))
    }
}

/// Where notices of a group go, and by what names they tell of it.
struct Addressee {
    topic: Arc<str>,
    group: Arc<str>,
    first: PartitionId,
    partitions: u32,
}

impl Engine {
    /// Carries out a command that may move a message to the dead letters, with the notice that its group asks for.
    pub(in crate::engine) fn submit_move<'a>(
        &self,
        moved: &Moved<'_>,
        command: impl Fn(Notice) -> Command<'a>,
    ) -> Result<Result<Lsn, Rejection>> {
        let mut submitted = self.submit_copy(&command(Notice::Unasked), moved.part())?;
        while submitted == Err(Rejection::NoticeDue) {
            let made = self.notice(moved)?;
            let parts: Vec<&[u8]> = made.parts_of_move(moved.part()).collect();
            let outgoing = Outgoing::default().with_others(&[], &parts)?;
            // seam: a notice without its move
            submitted = self.submit(&command(made.notice), outgoing.parts(), crate::engine::deliver::settle::end_of)?;
        }
        Ok(submitted)
    }

    /// The notice that the move of a message is to have, as its group asks now.
    pub(in crate::engine) fn notice(&self, moved: &Moved<'_>) -> Result<MoveNotice> {
        // Two messages that tell of each other's moves would never end.
        // seam: notices of notices
        if is_notice(moved.part()) {
            return Ok(MoveNotice::none(Notice::Never));
        }
        let asked = {
            let core = self.lock_core();
            let addressee = core.view.state.notice_topic(moved.at.0).map(|(topic, group, to)| Addressee {
                topic: Arc::clone(topic),
                group: Arc::clone(group),
                first: to.first,
                partitions: to.count,
            });
            addressee.zip(core.view.state.dying(moved.at, moved.stored.publication()))
        };
        // A message that is no longer outstanding does not move: the command finds that out.
        let Some((to, dying)) = asked else { return Ok(MoveNotice::none(Notice::Unasked)) };
        self.encode_notice(moved, &to, &dying)
    }

    fn encode_notice(&self, moved: &Moved<'_>, to: &Addressee, dying: &Dying) -> Result<MoveNotice> {
        // seam: a notice is lost
        let key = moved.stored.view(moved.nth).key();
        let (cause, text) = moved.end.unwrap_or((dying.cause, &dying.text));
        let (id, attempts) = (dying.id.to_string(), dying.attempts.to_string());
        let time = self.clock.wall().to_string();
        let headers: [(&str, &[u8]); 6] = [
            (ID, id.as_bytes()),
            (TOPIC, to.topic.as_bytes()),
            (GROUP, to.group.as_bytes()),
            (CAUSE, name_of(cause).as_bytes()),
            (ATTEMPTS, attempts.as_bytes()),
            (TIME, time.as_bytes()),
        ];
        // Without a key they spread as the messages do.
        let index = key.map_or(dying.id.offset.0, key_hash) % u64::from(to.partitions);
        let (partition, mut message) = (to.first.saturating_add(index), Outgoing::default());
        message.add(partition, key, headers.into_iter(), capped(text).as_bytes(), FRAME_LEN_MAX)?;
        Ok(MoveNotice { notice: Notice::Into(partition), message: Some(message) })
    }
}

fn is_notice(part: &[u8]) -> bool {
    MessageView::parse(part).is_ok_and(|view| view.headers().any(|(name, _)| name == ID))
}

const fn name_of(cause: FailureCause) -> &'static str {
    match cause {
        FailureCause::Nacked => "nacked",
        FailureCause::Expired => "expired",
        FailureCause::Crashed => "crashed",
        FailureCause::Closed => "closed",
        FailureCause::Rejected => "rejected",
    }
}
