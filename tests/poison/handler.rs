//! The child: consumers whose handler of one message ends the process.
//!
//! ```text
//! got ID ATTEMPT                leased
//! ack ID                        about to be acked
//! handle ID                     about to die of it
//! drained                       nothing is left
//! ```

use crate::child::{leave_no_core, must, say};
use millpond::{Delivery, Durability, Group, Store};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

pub(crate) const TOPIC: &str = "meals";
pub(crate) const GROUP: &str = "tasters";
pub(crate) const POISON: &[u8] = b"poison";

/// How a handler ends its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    Abort,
    StackOverflow,
    Exit,
    ExitAtOnce,
    BadAddress,
    Kill,
}

impl Death {
    pub(crate) const ALL: [Self; 6] =
        [Self::Abort, Self::StackOverflow, Self::Exit, Self::ExitAtOnce, Self::BadAddress, Self::Kill];

    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    /// Fails where a process did not end in this way.
    pub(crate) fn assert_died(self, status: ExitStatus) {
        let expected = match self {
            // A stack that overflows is noticed by the runtime, which aborts.
            Self::Abort | Self::StackOverflow => (Some(libc::SIGABRT), None),
            Self::Exit | Self::ExitAtOnce => (None, Some(1)),
            Self::BadAddress => (Some(libc::SIGSEGV), None),
            Self::Kill => (Some(libc::SIGKILL), None),
        };
        assert_eq!((status.signal(), status.code()), expected, "{self:?}");
    }

    fn die(self) -> ! {
        match self {
            Self::Abort => std::process::abort(),
            Self::StackOverflow => {
                overflow(0);
                unreachable!("the stack has an end")
            }
            Self::Exit => std::process::exit(1),
            Self::ExitAtOnce => exit_at_once(),
            Self::BadAddress => touch_a_bad_address(),
            Self::Kill => {
                must(rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL));
                unreachable!("nobody survives that")
            }
        }
    }
}

#[expect(unconditional_recursion, reason = "that is the point")]
fn overflow(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    overflow(depth + 1) + frame[0]
}

#[allow(unsafe_code, reason = "no other way past the handlers of exit")]
fn exit_at_once() -> ! {
    // SAFETY: it takes an integer and does not return.
    unsafe { libc::_exit(1) }
}

/// Reads from a page that may not be read.
#[allow(unsafe_code, reason = "the death of a handler with a wild pointer")]
fn touch_a_bad_address() -> ! {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new private mapping, wherever the kernel likes.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_NONE, flags, -1, 0) };
    // SAFETY: none: the address is mapped and may not be read, so the kernel ends the process here. That is what is tested.
    unsafe { page.cast::<u8>().read_volatile() };
    unreachable!("the page may not be read")
}

pub(crate) fn open_store(dir: &Path) -> Store {
    must(Store::options().durability(Durability::Os).open(dir))
}

/// A wait here gives other threads a while to lease something, too.
#[derive(Default)]
struct Crowd {
    busy: Mutex<u32>,
    came: Condvar,
}

impl Crowd {
    fn change(&self, by: i32) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        *busy = busy.saturating_add_signed(by);
        self.came.notify_all();
    }

    /// Until another thread has messages in hand; not for ever, for under an exclusive lease none will.
    fn wait(&self) {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.came.wait_timeout_while(busy, Duration::from_millis(5), |busy| *busy < 2));
    }
}

/// Works until everything is settled, or dies.
pub(crate) fn work(task: &str, dir: &Path) {
    leave_no_core();
    let words: Vec<&str> = task.split(' ').collect();
    let death = Death::ALL.into_iter().find(|death| death.name() == words[0]).expect("a death");
    let [threads, batch] = [words[1], words[2]].map(|word| word.parse::<usize>().expect("a number"));
    let store = open_store(dir);
    let group = must(must(store.topic(TOPIC).open()).group(GROUP).open());
    let crowd = Crowd::default();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| consume(&store, &group, batch, death, &crowd));
        }
    });
    must(store.close());
    say("drained");
}

fn consume(store: &Store, group: &Group, batch: usize, death: Death, crowd: &Crowd) {
    loop {
        let deliveries = must(group.receive_batch(batch, Duration::from_millis(20)));
        if deliveries.is_empty() {
            if must(store.stats()).topics[0].groups[0].lag == 0 {
                return;
            }
            continue;
        }
        for delivery in &deliveries {
            say(format_args!("got {} {}", delivery.id(), delivery.attempt()));
        }
        crowd.change(1);
        crowd.wait();
        deliveries.into_iter().for_each(|delivery| handle(delivery, death));
        crowd.change(-1);
    }
}

fn handle(delivery: Delivery, death: Death) {
    let id = delivery.id();
    if delivery.payload() == POISON {
        say(format_args!("handle {id}"));
        death.die();
    }
    // Said first: what is said after the ack could be cut off by the death of another thread.
    say(format_args!("ack {id}"));
    must(delivery.ack());
}
