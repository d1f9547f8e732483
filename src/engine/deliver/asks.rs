//! Receiving for futures: a future asks, and a thread of the store's receives for it, so that no poll does I/O.
//!
//! The first ask starts the thread. It serves the asks of a group in order and the groups in turn, and leaves one waker for all asks of
//! a group that has nothing, as a blocked consumer does for itself. It holds no handle: what it answers is made a delivery by the
//! future. An ask that is withdrawn has its answer given back, the attempts not counted. Locks, in order: that of the lines, that of a
//! slot. Never here: public futures.

use crate::engine::deliver::leased::Received;
use crate::engine::deliver::receive::{Receiving, Request, Wait};
use crate::engine::{Engine, HeldRun};
use crate::error::{Error, Result};
use crate::ids::{GroupId, MonoMs, TopicId};
use crate::sync::{Builder, Condvar, JoinHandle, Mutex, is_this_thread, panicking};
use crate::view::Reader;
use crate::wait::{Ticket, wake_callers};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

/// What an ask is answered: messages, and why others could not be read.
pub(crate) type Answer = Result<(Vec<Received>, Vec<Error>)>;

/// One future's request for messages of a group.
#[derive(Debug)]
pub(crate) struct Ask {
    group: GroupId,
    max: usize,
    slot: Mutex<AskSlot>,
}

#[derive(Debug)]
enum AskSlot {
    Open(Option<Waker>),
    Answered(Answer),
    /// The future has the answer, or is gone.
    Left,
}

/// The asks of a store, and the thread that serves them.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    lines: Arc<Lines>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What futures and the thread share.
#[derive(Debug, Default)]
struct Lines {
    state: Mutex<LineState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LineState {
    stopped: bool,
    groups: BTreeMap<GroupId, Line>,
    /// The group that was served last.
    last: Option<GroupId>,
}

/// The asks of one group.
#[derive(Debug)]
struct Line {
    topic: TopicId,
    asks: VecDeque<Arc<Ask>>,
    /// When the thread looks by itself. A waker that is called brings it forward to [`NOW`].
    look_at: MonoMs,
}

const NOW: MonoMs = MonoMs(0);
const NEVER: MonoMs = MonoMs(u64::MAX);

/// How many asks of a group are served before the other groups have their turn.
const ASKS_PER_TURN: usize = 64;

/// Called when there may be something for the group.
struct LineWaker {
    lines: Arc<Lines>,
    group: GroupId,
}

impl Wake for LineWaker {
    fn wake(self: Arc<Self>) {
        self.lines.look_now(self.group);
    }
}

impl Ask {
    /// The answer, or else leaves a waker.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Answer> {
        // Cloned and dropped without the lock, for a waker may be anything.
        let waker = waker.clone();
        let mut slot = self.slot.lock();
        let before = std::mem::replace(&mut *slot, AskSlot::Left);
        let answer = match before {
            AskSlot::Answered(answer) => return Poll::Ready(answer),
            AskSlot::Open(before) => {
                *slot = AskSlot::Open(Some(waker));
                before
            }
            AskSlot::Left => None,
        };
        drop(slot);
        drop(answer);
        Poll::Pending
    }

    /// Gives the answer to the future. Returns it where that is gone.
    fn answer(&self, answer: Answer) -> Option<Answer> {
        let mut slot = self.slot.lock();
        let waker = match std::mem::replace(&mut *slot, AskSlot::Left) {
            AskSlot::Open(waker) => waker,
            AskSlot::Answered(_) | AskSlot::Left => return Some(answer),
        };
        *slot = AskSlot::Answered(answer);
        drop(slot);
        wake_callers(waker);
        None
    }

    /// The future is gone. Returns what was there, to be dropped without a lock.
    fn leave(&self) -> AskSlot {
        std::mem::replace(&mut *self.slot.lock(), AskSlot::Left)
    }

    fn is_left(&self) -> bool {
        matches!(*self.slot.lock(), AskSlot::Left)
    }
}

impl Lines {
    fn look_now(&self, group: GroupId) {
        if let Some(line) = self.state.lock().groups.get_mut(&group) {
            line.look_at = NOW;
        }
        self.changed.notify_one();
    }

    /// Waits until a group is to be looked at, and names it. `None`: the thread is to end.
    fn next(&self, engine: &Engine) -> Option<(GroupId, TopicId)> {
        let mut state = self.state.lock();
        while !state.stopped {
            let now = engine.now().mono;
            let after = (state.last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
            let mut in_turn = state.groups.range(after).chain(&state.groups);
            if let Some((&group, &Line { topic, .. })) = in_turn.find(|(_, line)| line.look_at <= now) {
                state.last = Some(group);
                // A waker that is called from now on is seen in the next turn.
                state.groups.entry(group).and_modify(|line| line.look_at = NEVER);
                return Some((group, topic));
            }
            let first = state.groups.values().map(|line| line.look_at).min();
            match first.and_then(|first| first.0.checked_sub(now.0)) {
                // An hour at a time: the loop around looks again, and no platform's clock arithmetic overflows.
                Some(ms) => {
                    self.changed.wait_for(&mut state, Duration::from_millis(ms.min(3_600_000)));
                }
                None => self.changed.wait(&mut state),
            }
        }
        None
    }

    /// The first ask of the group. With none the group is gone from here.
    fn first(&self, group: GroupId) -> Option<Arc<Ask>> {
        let mut state = self.state.lock();
        let first = state.groups.get_mut(&group)?.asks.pop_front();
        if first.is_none() {
            state.groups.remove(&group);
        }
        first
    }

    /// There is nothing for this ask, which was the first, until a waker is called or `look_at`.
    fn put_back(&self, ask: Arc<Ask>, look_at: MonoMs) {
        let mut state = self.state.lock();
        let Some(line) = state.groups.get_mut(&ask.group) else {
            unreachable!("internal error: asks of a group that is not there; please report this")
        };
        line.look_at = line.look_at.min(look_at);
        // Under the lock that a future takes which goes away.
        if !ask.is_left() {
            line.asks.push_front(ask);
        }
        if line.asks.is_empty() {
            line.look_at = NOW;
        }
    }
}

impl Engine {
    /// Asks for up to `max` messages of the group.
    ///
    /// # Errors
    /// `Io` or `OutOfMemory` where the system has no thread to give; `Closed`, `Poisoned`, `Forked`.
    pub(crate) fn ask(self: &Arc<Self>, group: GroupId, topic: TopicId, max: usize) -> Result<Arc<Ask>> {
        self.enter()?;
        let ask = Arc::new(Ask { group, max, slot: Mutex::new(AskSlot::Open(None)) });
        let lines = &self.futures.asks.lines;
        let mut thread = self.futures.asks.thread.lock();
        let mut state = lines.state.lock();
        if state.stopped {
            return Err(Error::Closed);
        }
        if thread.is_none() {
            let (engine, lines) = (Arc::clone(self), Arc::clone(lines));
            let serve = move || AskServer::new(&engine, &lines).serve();
            let started = Builder::new().name("millpond-receive".to_owned()).spawn(serve);
            *thread = Some(started.map_err(|error| Error::io("start a thread", error))?);
        }
        let line = Line { topic, asks: VecDeque::new(), look_at: NOW };
        // Where others ask already, the thread looks or has left a waker for all of them.
        state.groups.entry(group).or_insert(line).asks.push_back(Arc::clone(&ask));
        drop(state);
        lines.changed.notify_one();
        Ok(ask)
    }

    /// The future of this ask is gone: what it was answered is given back, and what it is answered from now on too.
    pub(crate) fn withdraw(&self, ask: &Arc<Ask>) {
        let mut state = self.futures.asks.lines.state.lock();
        let left = ask.leave();
        if let Some(line) = state.groups.get_mut(&ask.group) {
            line.asks.retain(|other| !Arc::ptr_eq(other, ask));
            if line.asks.is_empty() {
                // The thread takes its waker back.
                line.look_at = NOW;
                self.futures.asks.lines.changed.notify_one();
            }
        }
        drop(state);
        match left {
            AskSlot::Answered(answer) => self.give_back(ask.group, Some(answer)),
            AskSlot::Open(_) | AskSlot::Left => {}
        }
    }

    fn give_back(&self, group: GroupId, answer: Option<Answer>) {
        let Some(Ok((received, _))) = answer else { return };
        let runs: Vec<HeldRun> = received.iter().map(Received::held_run).collect();
        // seam: what a dropped future was given stays leased
        if !runs.is_empty() {
            // What cannot be given back comes back when its lease ends.
            let _ = self.release(group, &runs);
        }
    }

    /// Lets the thread see that time has passed, by a clock that it cannot wait for.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn look_at_asks(&self) {
        self.futures.asks.lines.changed.notify_all();
    }

    /// Ends the thread and answers all asks with `Closed`.
    pub(crate) fn stop_asks(&self) {
        self.futures.asks.lines.state.lock().stopped = true;
        self.futures.asks.lines.changed.notify_all();
        let thread = self.futures.asks.thread.lock().take();
        // A waker that the thread calls may drop the last handle: it ends by itself then.
        if let Some(thread) = thread.filter(|thread| !is_this_thread(thread)) {
            // A thread that panicked has poisoned the store; there is nothing more to learn from it.
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct AskServer<'a> {
    engine: &'a Engine,
    lines: &'a Arc<Lines>,
    /// Of groups that had nothing.
    tickets: BTreeMap<GroupId, Arc<Ticket>>,
    /// The ask that is served.
    serves: Option<Arc<Ask>>,
}

/// However the thread ends, no future waits on.
impl Drop for AskServer<'_> {
    fn drop(&mut self) {
        if panicking() {
            self.engine.poison("a panic while receiving for futures");
        }
        std::mem::take(&mut self.tickets).values().for_each(|ticket| self.engine.leave_sleep(ticket));
        let lines = {
            let mut state = self.lines.state.lock();
            state.stopped = true;
            std::mem::take(&mut state.groups)
        };
        let asks = lines.into_values().flat_map(|line| line.asks);
        for ask in self.serves.take().into_iter().chain(asks) {
            // Nothing was received for it.
            let _ = ask.answer(Err(self.engine.enter().err().unwrap_or(Error::Closed)));
        }
    }
}

impl<'a> AskServer<'a> {
    fn new(engine: &'a Engine, lines: &'a Arc<Lines>) -> Self {
        Self { engine, lines, tickets: BTreeMap::new(), serves: None }
    }

    fn serve(mut self) {
        let reader = Mutex::<Reader>::default();
        while let Some((group, topic)) = self.lines.next(self.engine) {
            self.look((group, topic), &reader);
        }
    }

    /// Serves the asks of a group, each once at most so that other groups have their turn.
    fn look(&mut self, (group, topic): (GroupId, TopicId), reader: &Mutex<Reader>) {
        if let Some(ticket) = self.tickets.remove(&group) {
            self.engine.leave_sleep(&ticket);
        }
        let waker = Waker::from(Arc::new(LineWaker { lines: Arc::clone(self.lines), group }));
        for _ in 0..ASKS_PER_TURN {
            let Some(ask) = self.lines.first(group) else {
                // The wake-up may have been meant for a message that somebody else wants.
                return self.engine.wake_next(group);
            };
            self.serves = Some(Arc::clone(&ask));
            let mut received = Vec::new();
            let request = Request { group, topic, max: ask.max, wait: Wait::new(self.engine, Duration::MAX) };
            let each = &mut |some| received.push(some);
            let found = self.engine.receive_or_sleep(&request, reader, &mut || waker.clone(), each);
            self.serves = None;
            let untaken = match found {
                Ok(Receiving::Asleep(ticket)) => {
                    let until = ticket.until;
                    self.tickets.insert(group, ticket);
                    return self.lines.put_back(ask, until);
                }
                Ok(Receiving::Done(unreadable)) => ask.answer(Ok((received, unreadable))),
                Err(error) => ask.answer(Err(error)),
            };
            self.engine.give_back(group, untaken);
        }
        self.lines.look_now(group);
    }
}
