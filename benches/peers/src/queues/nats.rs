//! NATS JetStream with a file store, over the loopback interface: a work-queue stream and a durable pull consumer.

use super::server::{Connection, Server, ask};
use crate::queue::{Acknowledgement, Facts, Mode, Peer, Queue, Result, Survives};
use crate::workload::Workload;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(super) const PEER: Peer =
    Peer { name: "nats", facts, open, is_present: || ask("nats-server", "--version").is_some() };

const NO_SYNC: &str =
    "it answers before it syncs (every two minutes; sync_interval: always, of 2.10 and later, is not tried here)";
const STREAM: &str = r#"{"name":"q","subjects":["m"],"retention":"workqueue","storage":"file","num_replicas":1}"#;
const CONSUMER: &str = r#"{"stream_name":"q","config":{"durable_name":"c","deliver_policy":"all","ack_policy":"explicit","max_ack_pending":10000}}"#;
/// How long after the end of a request its answer may come.
const FORGOTTEN: Duration = Duration::from_millis(50);

struct Nats {
    server: Server,
    inboxes: AtomicU64,
}

/// What the server sends to an inbox.
enum Incoming {
    /// A message, and where to acknowledge it.
    Message { reply: String, payload: Vec<u8> },
    /// The end of a request for messages, or that nobody answers: the status and what it means.
    Status(String),
    /// The answer to a ping: all that was sent before it has come.
    Pong,
}

fn facts() -> Facts {
    let version = ask("nats-server", "--version").unwrap_or_default();
    Facts {
        version: version.trim().strip_prefix("nats-server: v").unwrap_or("not installed").to_owned(),
        survives_kill9: Survives::Yes,
        survives_power_loss: Survives::Partly("up to 2 min lost"),
        survives_power_loss_when_asked: Survives::No,
        acknowledgement: Acknowledgement::Leased,
        acknowledgement_survives_kill9: Survives::Partly("about 100 ms lost"),
        acknowledgement_survives_power_loss: Survives::Partly("up to 2 min lost"),
        note: "A server, over loopback: a work-queue stream with file storage, each publish confirmed; a durable pull consumer, each \
               acknowledgement confirmed; batches are pipelined. The state of the consumer reaches its file some ten times a second (killed after 3 s of acknowledgements, it delivered the last 0.1 s of them again).",
        cannot: &[(Workload::Durable, NO_SYNC), (Workload::DurableBatch, NO_SYNC), (Workload::DurableMany, NO_SYNC)],
        advantages: &[
            (Workload::DiskBytes, "some thirty bytes a message, and no preallocation"),
            (
                Workload::OpenKilled,
                "each block of 4 MiB has a small index file, so that only blocks whose index is old are read again; nothing is synced \
                 (no fsync under strace), so what was not durable before the kill is not after it",
            ),
        ],
    }
}

fn open(dir: &Path, _: Mode) -> Result<Box<dyn Queue>> {
    let mut command = Command::new("nats-server");
    command.args(["-a", "127.0.0.1", "-js", "-sd"]).arg(dir);
    let inboxes = AtomicU64::new(0);
    let server = Server::start(
        command,
        |command, port| {
            command.arg("-p").arg(port.to_string());
        },
        |connection| {
            greet(connection, &inboxes)?;
            request(connection, "$JS.API.INFO", b"")?;
            Ok(matches!(incoming(connection)?, Incoming::Message { .. }))
        },
    )?;
    let nats = Nats { server, inboxes };
    nats.create("$JS.API.STREAM.CREATE.q", STREAM)?;
    nats.create("$JS.API.CONSUMER.DURABLE.CREATE.q.c", CONSUMER)?;
    Ok(Box::new(nats))
}

/// Opens the protocol on a fresh connection: all answers to its requests go to one inbox.
fn greet(connection: &mut Connection, inboxes: &AtomicU64) -> Result<()> {
    if connection.is_greeted {
        return Ok(());
    }
    let info = connection.line()?;
    if !info.starts_with("INFO ") {
        return Err(info.into());
    }
    connection.out.extend_from_slice(b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n");
    subscribe(connection, inboxes)?;
    connection.is_greeted = true;
    Ok(())
}

/// Takes a fresh inbox. What was still on its way to the one before comes to nothing.
fn subscribe(connection: &mut Connection, inboxes: &AtomicU64) -> Result<()> {
    connection.inbox = format!("_INBOX.{}", inboxes.fetch_add(1, Ordering::Relaxed));
    write!(connection.out, "UNSUB 1\r\nSUB {} 1\r\nPING\r\n", connection.inbox)?;
    connection.flush()?;
    while !matches!(incoming(connection)?, Incoming::Pong) {}
    Ok(())
}

/// Puts a message into what goes out, with the connection's inbox for the answer.
fn put(connection: &mut Connection, subject: &str, payload: &[u8]) -> Result<()> {
    write!(connection.out, "PUB {subject} {} {}\r\n", connection.inbox, payload.len())?;
    connection.out.extend_from_slice(payload);
    connection.out.extend_from_slice(b"\r\n");
    Ok(())
}

fn request(connection: &mut Connection, subject: &str, payload: &[u8]) -> Result<()> {
    put(connection, subject, payload)?;
    connection.flush()
}

fn incoming(connection: &mut Connection) -> Result<Incoming> {
    loop {
        let line = connection.line()?;
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["PING"] => {
                connection.out.extend_from_slice(b"PONG\r\n");
                connection.flush()?;
            }
            ["INFO", ..] => {}
            ["PONG"] => return Ok(Incoming::Pong),
            ["MSG", _, _, between @ .., len] => {
                let payload = connection.body(len.parse()?)?;
                let reply = between.first().copied().unwrap_or_default().to_owned();
                return Ok(Incoming::Message { reply, payload });
            }
            ["HMSG", _, _, .., len] => {
                let body = connection.body(len.parse()?)?;
                let text = String::from_utf8_lossy(&body);
                let status = text.lines().next().and_then(|line| line.strip_prefix("NATS/1.0 "));
                return Ok(Incoming::Status(status.ok_or("a message with headers")?.to_owned()));
            }
            _ => return Err(line.into()),
        }
    }
}

/// The answer to a request, which must come from somebody.
fn answer(connection: &mut Connection) -> Result<Vec<u8>> {
    loop {
        match incoming(connection)? {
            Incoming::Message { payload, .. } => return Ok(payload),
            Incoming::Status(status) if is_end(&status) => {}
            Incoming::Status(status) => return Err(status.into()),
            Incoming::Pong => return Err("an answer that nobody asked for".into()),
        }
    }
}

/// Whether a request for messages ended with that: there are none, or the time is up. It may come after the last of them.
fn is_end(status: &str) -> bool {
    status.starts_with("404") || status.starts_with("408")
}

impl Nats {
    fn with<T>(&self, act: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        self.server.with(|connection| {
            greet(connection, &self.inboxes)?;
            act(connection)
        })
    }

    /// Creates what is there already in the same form without complaint.
    fn create(&self, subject: &str, what: &str) -> Result<()> {
        let answer = self.with(|connection| {
            request(connection, subject, what.as_bytes())?;
            answer(connection)
        })?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        if answer.contains(r#""error""#) { Err(answer.into()) } else { Ok(()) }
    }

    /// Asks for up to `max` messages, waiting for them or taking what is there, and acknowledges them.
    fn receive(&self, max: usize, wait: Option<Duration>, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        let until = wait.map_or(r#""no_wait":true"#.to_owned(), |wait| format!(r#""expires":{}"#, wait.as_nanos()));
        let ask = format!(r#"{{"batch":{max},{until}}}"#);
        self.with(|connection| {
            request(connection, "$JS.API.CONSUMER.MSG.NEXT.q.c", ask.as_bytes())?;
            let mut replies: Vec<String> = Vec::new();
            while replies.len() < max {
                // A request that came to its end while it was served is now and then forgotten by the server.
                if !connection.has_more(wait.unwrap_or_default() + FORGOTTEN)? {
                    subscribe(connection, &self.inboxes)?;
                    break;
                }
                match incoming(connection)? {
                    Incoming::Message { reply, payload } => {
                        sink(&payload);
                        replies.push(reply);
                    }
                    Incoming::Status(status) if is_end(&status) => break,
                    Incoming::Status(status) => return Err(status.into()),
                    Incoming::Pong => {}
                }
            }
            replies.iter().try_for_each(|reply| put(connection, reply, b"+ACK"))?;
            connection.flush()?;
            replies.iter().try_for_each(|_| answer(connection).map(drop))?;
            Ok(replies.len())
        })
    }
}

impl Queue for Nats {
    fn publish(&self, payload: &[u8]) -> Result<()> {
        self.publish_batch(&[payload])
    }

    fn publish_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        self.with(|connection| {
            payloads.iter().try_for_each(|payload| put(connection, "m", payload))?;
            connection.flush()?;
            for _ in payloads {
                let confirmed = answer(connection)?;
                if !confirmed.windows(5).any(|bytes| bytes == b"\"seq\"") {
                    return Err(String::from_utf8_lossy(&confirmed).into_owned().into());
                }
            }
            Ok(())
        })
    }

    fn publish_durable(&self, _: &[u8]) -> Result<()> {
        Err(NO_SYNC.into())
    }

    fn receive_ack(&self, sink: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.receive(1, None, sink)? > 0)
    }

    fn receive_ack_batch(&self, max: usize, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        self.receive(max, None, sink)
    }

    fn receive_ack_wait(&self, max: usize, wait: Duration, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        self.receive(max, Some(wait), sink)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.server.terminate()?;
        self.server.wait()
    }
}
