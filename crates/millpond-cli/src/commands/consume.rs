//! Receiving messages of a group, and settling each.
//!
//! Never here: dead letters.

#![allow(clippy::disallowed_methods, reason = "a person waits here, by no simulated clock")]

use super::group;
use super::tail::interrupted;
use crate::args::{Consume, Settle};
use crate::output::{Done, Failure, Printer};
use crate::text::{message, short};
use millpond::{Delivery, Store};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long one wait takes, after which an interrupt is seen.
const STEP: Duration = Duration::from_millis(100);
/// The code by which a command asks for the message again later (sysexits.h: `EX_TEMPFAIL`).
const LATER: i32 = 75;
/// How much later.
const LATER_AFTER: Duration = Duration::from_secs(10);

pub fn consume(store: &Store, args: &Consume, printer: &mut Printer) -> Done {
    let group = group(store, &args.topic, &args.group)?;
    let (stop, mut left, mut waited_since) = (interrupted()?, args.max, Instant::now());
    // What is left goes back when it is dropped behind the loop, so that no message is received twice.
    let mut kept = Vec::new();
    while left > 0 && !stop.load(Ordering::Relaxed) {
        let Some(delivery) = group.receive(args.wait.min(STEP))? else {
            printer.flush()?;
            if waited_since.elapsed() >= args.wait {
                break;
            }
            continue;
        };
        left -= 1;
        match &args.exec {
            Some(command) => execute(command, delivery, printer)?,
            None => {
                printer.show(|| as_json(&delivery), || line(&delivery))?;
                // It is seen before it is settled: whoever reads this may have gone.
                printer.flush()?;
                match args.settle {
                    Settle::Ack => delivery.ack()?,
                    Settle::Reject => delivery.reject("rejected from the command line")?,
                    Settle::Leave => kept.push(delivery),
                }
            }
        }
        waited_since = Instant::now();
    }
    kept.into_iter().try_for_each(|delivery| delivery.release().map_err(Failure::from))
}

/// Runs the command with the message, and settles that by its exit code.
fn execute(command: &str, delivery: Delivery, printer: &mut Printer) -> Done {
    let id = delivery.id();
    let mut child = Command::new("/bin/sh");
    child.args(["-c", command]).stdin(Stdio::piped()).stderr(Stdio::piped());
    child.env("MILLPOND_ID", id.to_string()).env("MILLPOND_ATTEMPT", delivery.attempt().to_string());
    child.env("MILLPOND_TOPIC", delivery.topic()).env("MILLPOND_GROUP", delivery.group());
    if let Some(key) = delivery.key() {
        child.env("MILLPOND_KEY", String::from_utf8_lossy(key).replace('\0', ""));
    }
    for (name, value) in delivery.headers() {
        let name: String = name
            .chars()
            .map(|char| if char.is_ascii_alphanumeric() { char.to_ascii_uppercase() } else { '_' })
            .collect();
        child.env(format!("MILLPOND_HEADER_{name}"), String::from_utf8_lossy(value).replace('\0', ""));
    }
    printer.flush()?;
    let failed = |error| Failure::Io(format!("could not run {command:?}"), error);
    let mut running = child.spawn().map_err(failed)?;
    let input = running.stdin.take();
    let payload = delivery.payload();
    // Both at once, for neither end may wait for the other.
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            let Some(mut input) = input else { return };
            // A command need not read its input.
            let _ = input.write_all(payload);
        });
        running.wait_with_output()
    });
    let output = output.map_err(failed)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    // What it says is for whoever runs this.
    let _ = io::stderr().write_all(&output.stderr);
    let reason = errors.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("").trim();
    let outcome = match output.status.code() {
        Some(0) => delivery.ack().map(|()| "acked"),
        Some(LATER) => {
            delivery.nack_after(LATER_AFTER, if reason.is_empty() { "later" } else { reason }).map(|()| "later")
        }
        Some(code) => delivery.nack(format!("exit {code}: {reason}")).map(|()| "failed"),
        None => delivery.nack(format!("{}: {reason}", output.status)).map(|()| "failed"),
    };
    let outcome = outcome?;
    printer.show(|| json!({ "id": id.to_string(), "outcome": outcome }), || format!("{id}  {outcome}"))
}

fn line(delivery: &Delivery) -> String {
    format!("{}  attempt {}  {}", delivery.id(), delivery.attempt(), short(delivery.payload()))
}

fn as_json(delivery: &Delivery) -> Value {
    let more = json!({ "id": delivery.id().to_string(), "attempt": delivery.attempt() });
    message(more, delivery.key(), delivery.headers(), delivery.timestamp(), delivery.payload())
}
