//! Receiving messages of a group, and settling each.
//!
//! Never here: dead letters.

#![allow(clippy::disallowed_methods, reason = "a person waits here, by no simulated clock")]

use super::group;
use super::tail::interrupted;
use crate::args::{Consume, Settle};
use crate::output::{Done, Failure, Printer};
use crate::text::{message, short};
use millpond::{Delivery, Error, Store};
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long one wait takes, after which an interrupt is seen.
const STEP: Duration = Duration::from_millis(50);
/// The code by which a command asks for the message again later (sysexits.h: `EX_TEMPFAIL`).
const LATER: i32 = 75;
/// How much later.
const LATER_AFTER: Duration = Duration::from_secs(10);
/// The codes by which the shell says that there is no such command, or that it cannot be run.
const NO_COMMAND: [i32; 2] = [126, 127];
/// How long a command may go on after an interrupt.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long to wait for what it said on them.
const ERRORS_WAIT: Duration = Duration::from_secs(2);
/// How much of what a command says on its errors is kept.
const ERRORS_KEPT: usize = 4 << 10;
/// The largest header that goes into the environment, which the system bounds.
const HEADER_MAX: usize = 16 << 10;
/// How many messages are received and left at most.
const LEFT_MAX: u64 = 1_000;

pub fn consume(store: &Store, args: &Consume, printer: &mut Printer) -> Done {
    let mut kept = Vec::new();
    let done = receive(store, args, printer, &mut kept);
    let released = kept.into_iter().try_for_each(|delivery: Delivery| match delivery.release() {
        // Its lease was over: somebody else has it.
        Ok(()) | Err(Error::LeaseLost { .. }) => Ok(()),
        Err(error) => Err(Failure::from(error)),
    });
    done.and(released)
}

fn receive(store: &Store, args: &Consume, printer: &mut Printer, kept: &mut Vec<Delivery>) -> Done {
    let group = group(store, &args.topic, &args.group)?;
    let most = if args.settle == Settle::Leave { args.max.min(LEFT_MAX) } else { args.max };
    let (stop, mut left, mut waited_since) = (interrupted()?, most, Instant::now());
    while left > 0 && !stop.load(Ordering::Relaxed) {
        let Some(delivery) = group.receive(args.wait.min(STEP))? else {
            printer.flush()?;
            if waited_since.elapsed() >= args.wait {
                break;
            }
            continue;
        };
        if kept.iter().any(|other| other.id() == delivery.id()) {
            // The leases of those that are left are over: it would go round.
            kept.push(delivery);
            break;
        }
        left -= 1;
        match &args.exec {
            Some(command) => execute(command, delivery, &stop, printer)?,
            None => {
                if args.settle == Settle::Leave {
                    // First, so that it goes back where it cannot be shown.
                    kept.push(delivery);
                    let delivery = kept.last();
                    delivery.map_or(Ok(()), |delivery| printer.show(|| as_json(delivery), || line(delivery)))?;
                } else {
                    show_and_settle(args.settle, delivery, printer)?;
                }
            }
        }
        waited_since = Instant::now();
    }
    Ok(())
}

/// What cannot be shown is given back.
fn show_and_settle(settle: Settle, delivery: Delivery, printer: &mut Printer) -> Done {
    // It is seen before it is settled: whoever reads this may have gone.
    let shown = printer.show(|| as_json(&delivery), || line(&delivery)).and_then(|()| printer.flush());
    match (shown, settle) {
        (Err(failure), _) => {
            // The reason is told, and the message is no worse off than by a lease that ends.
            let _ = delivery.release();
            return Err(failure);
        }
        (Ok(()), Settle::Ack) => delivery.ack()?,
        (Ok(()), Settle::Reject) => delivery.reject("rejected from the command line")?,
        (Ok(()), Settle::Leave) => delivery.release()?,
    }
    Ok(())
}

/// Runs the command with the message, and settles that by its exit code.
fn execute(command: &str, delivery: Delivery, stop: &AtomicBool, printer: &mut Printer) -> Done {
    let id = delivery.id();
    printer.flush()?;
    let started = start(command, &delivery, printer.is_json());
    let ended = started.and_then(|(child, errors)| Ok((finish(child, &delivery, stop)?, errors)));
    let (status, errors) = match ended {
        Ok(ended) => ended,
        Err(error) => {
            delivery.release()?;
            return Err(Failure::Io(format!("could not run {command:?}, the message was given back"), error));
        }
    };
    // A child of the command may have the other end for ever.
    let errors = errors.recv_timeout(ERRORS_WAIT).unwrap_or_default();
    let errors = String::from_utf8_lossy(&errors);
    let reason = errors.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("").trim();
    let outcome = match status.code() {
        Some(0) => delivery.ack().map(|()| "acked"),
        // It was interrupted with this process, and did not fail by itself.
        _ if stop.load(Ordering::Relaxed) => delivery.release().map(|()| "released"),
        Some(code) if NO_COMMAND.contains(&code) => {
            delivery.release()?;
            return Err(Failure::Usage(format!("could not run {command:?} ({reason}), the message was given back")));
        }
        Some(LATER) => {
            delivery.nack_after(LATER_AFTER, if reason.is_empty() { "later" } else { reason }).map(|()| "later")
        }
        Some(code) => delivery.nack(format!("exit {code}: {reason}")).map(|()| "failed"),
        None => delivery.nack(format!("{status}: {reason}")).map(|()| "failed"),
    };
    let outcome = outcome?;
    printer.show(|| json!({ "id": id.to_string(), "outcome": outcome }), || format!("{id}  {outcome}"))
}

/// Also returns where the last of what it says on its errors comes from, once nobody has that end any more.
fn start(command: &str, delivery: &Delivery, is_json: bool) -> io::Result<(Child, Receiver<Vec<u8>>)> {
    let mut child = Command::new("/bin/sh");
    child.args(["-c", command]).stdin(Stdio::piped()).stderr(Stdio::piped());
    if is_json {
        // The output has lines of JSON alone.
        child.stdout(Stdio::from(io::stderr()));
    }
    child.env("MILLPOND_ID", delivery.id().to_string()).env("MILLPOND_ATTEMPT", delivery.attempt().to_string());
    child.env("MILLPOND_TOPIC", delivery.topic()).env("MILLPOND_GROUP", delivery.group());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.get(..HEADER_MAX).unwrap_or(bytes)).replace('\0', "");
    if let Some(key) = delivery.key() {
        child.env("MILLPOND_KEY", text(key));
    }
    for (name, value) in delivery.headers().take(256) {
        let upper = |char: char| if char.is_ascii_alphanumeric() { char.to_ascii_uppercase() } else { '_' };
        child.env(format!("MILLPOND_HEADER_{}", name.chars().map(upper).collect::<String>()), text(value));
    }
    let mut child = child.spawn()?;
    let (give, errors) = channel();
    if let Some(mut from) = child.stderr.take() {
        std::thread::spawn(move || {
            let (mut last, mut buffer) = (Vec::new(), [0; 4 << 10]);
            while let Ok(len @ 1..) = from.read(&mut buffer) {
                // It is for whoever runs this.
                let _ = io::stderr().write_all(&buffer[..len]);
                last.extend_from_slice(&buffer[..len]);
                last.drain(..last.len().saturating_sub(ERRORS_KEPT));
            }
            // Nobody may wait for it any more.
            let _ = give.send(last);
        });
    }
    Ok((child, errors))
}

/// Waits for its end. After an interrupt it has a while left.
fn finish(mut child: Child, delivery: &Delivery, stop: &AtomicBool) -> io::Result<ExitStatus> {
    if let Some(mut input) = child.stdin.take() {
        let payload = delivery.payload().to_vec();
        // A command need not read its input.
        std::thread::spawn(move || drop(input.write_all(&payload)));
    }
    let mut stopped_at = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if stop.load(Ordering::Relaxed) && stopped_at.get_or_insert_with(Instant::now).elapsed() > LAST_WORDS {
            child.kill()?;
            return child.wait();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn line(delivery: &Delivery) -> String {
    let key = delivery.key().map(|key| format!("  key {}", short(key))).unwrap_or_default();
    format!("{}  attempt {}{key}  {}", delivery.id(), delivery.attempt(), short(delivery.payload()))
}

fn as_json(delivery: &Delivery) -> Value {
    let more = json!({ "id": delivery.id().to_string(), "attempt": delivery.attempt() });
    message(more, delivery.key(), delivery.headers(), delivery.timestamp(), delivery.payload())
}
