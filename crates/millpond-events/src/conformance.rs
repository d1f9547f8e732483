//! What every transport must do, as a suite that anybody can run against a transport.

use crate::pattern::Pattern;
use crate::transport::{Claim, GroupOptions, Lease, Settled, Source, Transport, WireMessage, WireRef};
use crossbeam_channel::bounded;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

/// A fresh transport, and how to let its time pass.
pub struct Candidate {
    /// The transport, without messages.
    pub transport: Arc<dyn Transport>,
    /// Lets the time of the transport pass: of a real one, by waiting.
    pub advance: Box<dyn Fn(Duration)>,
}

type Case = fn(&Candidate) -> Result<(), String>;

/// Every case, by name.
const CASES: &[(&str, Case)] = &[
    ("every group gets every message once, unchanged and in order", each_group_gets_all),
    ("a group gets what its patterns match", patterns_select),
    ("a group that is created for new messages gets no old ones", only_new),
    ("a message that failed comes again, alone, with its attempt counted", retries),
    ("a retry is not early", delays),
    ("a message that failed waits by the backoff of its group", backoffs),
    ("a message is dead after its last attempt", last_attempt),
    ("a message that was rejected does not come again", rejects),
    ("a message that was released comes again", releases),
    ("a message comes again after its lease, and its first lease settles nothing", expiry),
    ("a lease that is extended lasts", extension),
    ("messages are published together with an ack, or not at all", atomic_ack),
    ("a dropped lease gives its message back", drops),
    ("a follower gets what is published from then on", follows),
    ("an inbox lets an event of two messages through once", inbox),
    ("a wake ends a wait, in progress or the next", wakes),
];

/// Runs every case against a transport of its own, and returns what is wrong: nothing, if the transport conforms.
pub fn check(new: impl Fn() -> Candidate) -> Vec<String> {
    let failed = |(name, case): &(&str, Case)| case(&new()).err().map(|reason| format!("{name}: {reason}"));
    CASES.iter().filter_map(failed).collect()
}

const VISIBILITY: Duration = Duration::from_secs(30);

fn options() -> GroupOptions {
    GroupOptions {
        visibility_timeout: Some(VISIBILITY),
        max_attempts: Some(3),
        backoff: Some(millpond::Backoff::none()),
        ..GroupOptions::default()
    }
}

fn message(number: u32) -> WireMessage {
    let event_type = if number.is_multiple_of(2) { "even.sent" } else { "odd.sent" };
    WireMessage {
        key: Some(b"key".to_vec()),
        headers: vec![("ce_type".into(), event_type.into()), ("x".into(), vec![0, 255]), ("x".into(), Vec::new())],
        payload: number.to_string().into_bytes(),
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, wanted: &T) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{what} is {got:?}, not {wanted:?}")) }
}

impl Candidate {
    fn publish(&self, numbers: impl IntoIterator<Item = u32>) -> Result<(), String> {
        numbers.into_iter().try_for_each(|number| self.transport.publish(&[message(number)])).map_err(text)
    }

    fn group(&self, name: &str, options: &GroupOptions) -> Result<Arc<dyn Source>, String> {
        self.transport.group(name, options).map_err(text)
    }

    /// An answer of a settle: what it should be, if the transport reports lost leases.
    fn expect_settled(&self, got: Settled, wanted: Settled) -> Result<(), String> {
        let reports = self.transport.capabilities().reports_lost_leases;
        expect("the answer", &got, &if reports { wanted } else { Settled::Unknown })
    }
}

fn all(source: &dyn Source) -> Result<Vec<Box<dyn Lease>>, String> {
    let mut leases = Vec::new();
    loop {
        match source.receive(3, Duration::ZERO).map_err(text)? {
            some if some.is_empty() => return Ok(leases),
            some => leases.extend(some),
        }
    }
}

fn one(source: &dyn Source) -> Result<Box<dyn Lease>, String> {
    source.receive(1, Duration::ZERO).map_err(text)?.pop().ok_or_else(|| "no message came".to_owned())
}

fn none(source: &dyn Source) -> Result<(), String> {
    expect("the number of messages", &all(source)?.len(), &0)
}

fn as_message(found: &dyn WireRef) -> WireMessage {
    let mut headers = Vec::new();
    found.each_header(&mut |name, value| headers.push((name.to_owned().into(), value.to_vec())));
    WireMessage { key: found.key().map(<[u8]>::to_vec), headers, payload: found.payload().to_vec() }
}

fn ack_all(source: &dyn Source) -> Result<Vec<WireMessage>, String> {
    let leases = all(source)?;
    let messages = leases.iter().map(|lease| as_message(&**lease)).collect();
    leases.into_iter().try_for_each(|lease| lease.ack(&[]).map(drop)).map_err(text)?;
    Ok(messages)
}

fn each_group_gets_all(candidate: &Candidate) -> Result<(), String> {
    let first = candidate.group("first", &options())?;
    candidate.publish(0..5)?;
    candidate.transport.publish(&(5..10).map(message).collect::<Vec<_>>()).map_err(text)?;
    let second = candidate.group("second", &options())?;
    let wanted: Vec<_> = (0..10).map(message).collect();
    for group in [&*first, &*second] {
        expect("what came", &ack_all(group)?, &wanted)?;
        none(group)?;
    }
    Ok(())
}

fn patterns_select(candidate: &Candidate) -> Result<(), String> {
    let patterns = vec!["odd.*".parse::<Pattern>().map_err(text)?];
    let group = candidate.group("odd", &GroupOptions { patterns, ..options() })?;
    candidate.publish((0..40).map(|number| number * 2).chain([1, 2, 3]))?;
    let untyped = WireMessage { headers: Vec::new(), ..message(0) };
    candidate.transport.publish(std::slice::from_ref(&untyped)).map_err(text)?;
    expect("what came", &ack_all(&*group)?, &vec![message(1), message(3), untyped])
}

fn only_new(candidate: &Candidate) -> Result<(), String> {
    candidate.publish([0])?;
    let group = candidate.group("new", &GroupOptions { only_new: true, ..options() })?;
    candidate.publish([1])?;
    expect("what came", &ack_all(&*group)?, &vec![message(1)])
}

fn retries(candidate: &Candidate) -> Result<(), String> {
    let group = candidate.group("group", &options())?;
    candidate.publish(0..3)?;
    let mut leases = all(&*group)?;
    let failed = leases.remove(1);
    let (id, attempt) = (failed.message_id(), failed.attempt());
    expect("the first attempt", &attempt, &1)?;
    candidate.expect_settled(failed.retry(None, "failed").map_err(text)?, Settled::Done)?;
    leases.into_iter().try_for_each(|lease| lease.ack(&[]).map(drop)).map_err(text)?;
    let again = one(&*group)?;
    expect("the message", &again.message_id(), &id)?;
    expect("the attempt", &again.attempt(), &2)?;
    again.ack(&[]).map_err(text)?;
    none(&*group)
}

fn delays(candidate: &Candidate) -> Result<(), String> {
    let group = candidate.group("group", &options())?;
    candidate.publish([0])?;
    one(&*group)?.retry(Some(Duration::from_secs(10)), "failed").map_err(text)?;
    none(&*group)?;
    (candidate.advance)(Duration::from_millis(9_500));
    none(&*group)?;
    (candidate.advance)(Duration::from_millis(600));
    one(&*group)?.ack(&[]).map(drop).map_err(text)
}

fn backoffs(candidate: &Candidate) -> Result<(), String> {
    let backoff = Some(millpond::Backoff::exponential(Duration::from_secs(10)).jitter(false));
    let group = candidate.group("group", &GroupOptions { backoff, ..options() })?;
    candidate.publish([0])?;
    for seconds in [10, 20] {
        one(&*group)?.retry(None, "failed").map_err(text)?;
        (candidate.advance)(Duration::from_secs(seconds) - Duration::from_millis(500));
        none(&*group)?;
        (candidate.advance)(Duration::from_millis(600));
    }
    one(&*group)?.ack(&[]).map(drop).map_err(text)
}

fn last_attempt(candidate: &Candidate) -> Result<(), String> {
    let group = candidate.group("group", &options())?;
    candidate.publish([0])?;
    for attempt in 1..=3 {
        let lease = one(&*group)?;
        expect("the attempt", &lease.attempt(), &attempt)?;
        lease.retry(None, "failed").map_err(text)?;
    }
    none(&*group)
}

fn rejects(candidate: &Candidate) -> Result<(), String> {
    let group = candidate.group("group", &options())?;
    candidate.publish([0])?;
    candidate.expect_settled(one(&*group)?.reject("bad").map_err(text)?, Settled::Done)?;
    (candidate.advance)(VISIBILITY * 2);
    none(&*group)
}

fn releases(candidate: &Candidate) -> Result<(), String> {
    let group = candidate.group("group", &options())?;
    candidate.publish([0])?;
    candidate.expect_settled(one(&*group)?.release().map_err(text)?, Settled::Done)?;
    let wanted = if candidate.transport.capabilities().uncounted_release { 1 } else { 2 };
    expect("the attempt", &one(&*group)?.attempt(), &wanted)
}

fn expiry(candidate: &Candidate) -> Result<(), String> {
    let group = candidate.group("group", &options())?;
    candidate.publish([0])?;
    let late = one(&*group)?;
    (candidate.advance)(VISIBILITY + Duration::from_secs(1));
    let second = one(&*group)?;
    expect("the attempt", &second.attempt(), &2)?;
    candidate.expect_settled(late.extend(VISIBILITY).map_err(text)?, Settled::Lost)?;
    candidate.expect_settled(late.ack(&[]).map_err(text)?, Settled::Lost)?;
    candidate.expect_settled(second.retry(None, "failed").map_err(text)?, Settled::Done)?;
    expect("the attempt", &one(&*group)?.attempt(), &3)
}

fn extension(candidate: &Candidate) -> Result<(), String> {
    let group = candidate.group("group", &options())?;
    candidate.publish([0])?;
    let lease = one(&*group)?;
    for _ in 0..4 {
        (candidate.advance)(VISIBILITY * 2 / 3);
        candidate.expect_settled(lease.extend(VISIBILITY).map_err(text)?, Settled::Done)?;
        none(&*group)?;
    }
    candidate.expect_settled(lease.ack(&[]).map_err(text)?, Settled::Done)
}

fn atomic_ack(candidate: &Candidate) -> Result<(), String> {
    let group = candidate.group("group", &options())?;
    candidate.publish([0])?;
    let lease = one(&*group)?;
    if !candidate.transport.capabilities().atomic_ack {
        let refused = lease.ack(&[message(1)]).is_err();
        return expect("whether it is refused", &refused, &true);
    }
    candidate.expect_settled(lease.ack(&[message(1), message(2)]).map_err(text)?, Settled::Done)?;
    let late = one(&*group)?;
    expect("what was published", &as_message(&*late), &message(1))?;
    (candidate.advance)(VISIBILITY + Duration::from_secs(1));
    let leases = all(&*group)?;
    expect("the number of messages", &leases.len(), &2)?;
    candidate.expect_settled(late.ack(&[message(3)]).map_err(text)?, Settled::Lost)?;
    leases.into_iter().try_for_each(|lease| lease.ack(&[]).map(drop)).map_err(text)?;
    none(&*group)
}

fn drops(candidate: &Candidate) -> Result<(), String> {
    let group = candidate.group("group", &options())?;
    candidate.publish([0])?;
    drop(one(&*group)?);
    (candidate.advance)(VISIBILITY + Duration::from_secs(1));
    expect("the attempt", &one(&*group)?.attempt(), &2)
}

fn follows(candidate: &Candidate) -> Result<(), String> {
    candidate.publish([0])?;
    let mut follower = candidate.transport.follow().map_err(text)?;
    candidate.publish(1..4)?;
    let mut came = Vec::new();
    while follower.next(Duration::ZERO, &mut |found| came.push(as_message(found))).map_err(text)? {}
    expect("what came", &came, &(1..4).map(message).collect())
}

fn inbox(candidate: &Candidate) -> Result<(), String> {
    let opened = candidate.transport.inbox("group", 100, Duration::from_secs(3600));
    if !candidate.transport.capabilities().inbox {
        return expect("whether it is refused", &opened.is_err(), &true);
    }
    let inbox = opened.map_err(text)?;
    let other = candidate.transport.inbox("other", 100, Duration::from_secs(3600)).map_err(text)?;
    let claims = [("a", "1"), ("b", "2"), ("a", "3"), ("a", "1")].map(|(event, message)| inbox.claim(event, message));
    let claims: Vec<Claim> = claims.into_iter().collect::<Result<_, _>>().map_err(text)?;
    expect("the claims", &claims, &vec![Claim::Held, Claim::Held, Claim::Duplicate, Claim::Held])?;
    expect("the claim of another group", &other.claim("a", "3").map_err(text)?, &Claim::Held)
}

/// Longer than a wake takes.
const PATIENCE: Duration = Duration::from_secs(10);

fn wakes(candidate: &Candidate) -> Result<(), String> {
    let group = candidate.group("group", &options())?;
    let (begin, begins) = bounded(0);
    let (end, ends) = bounded(2);
    // Left behind where it does not wake.
    let waiting = move |group: Arc<dyn Source>| {
        for _ in 0..2 {
            if begin.send(()).is_err() {
                return;
            }
            let came = group.receive(1, Duration::from_secs(3600)).map(|leases| leases.len());
            drop(end.send(came.map_err(text)));
        }
    };
    let waiter = Arc::clone(&group);
    std::thread::Builder::new().spawn(move || waiting(waiter)).map_err(text)?;
    let ended = || ends.recv_timeout(PATIENCE).unwrap_or_else(|_| Err("the wait does not end".to_owned()));
    // The first wake comes while the wait begins or goes on, the second before it begins.
    begins.recv_timeout(PATIENCE).map_err(text)?;
    (0..100).for_each(|_| std::thread::yield_now());
    group.wake();
    expect("the number of messages", &ended()?, &0)?;
    group.wake();
    begins.recv_timeout(PATIENCE).map_err(text)?;
    expect("the number of messages", &ended()?, &0)
}
