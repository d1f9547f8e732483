//! Redis Streams with an append-only file, over the loopback interface, with a consumer group.

use super::server::{Connection, Server, ask};
use crate::queue::{Acknowledgement, Facts, Mode, Peer, Queue, Result, Survives};
use crate::workload::Workload;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub(super) const PEER: Peer =
    Peer { name: "redis", facts, open, is_present: || ask("redis-server", "--version").is_some() };

struct Redis(Server);

/// A reply of the protocol.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Nil,
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Reply>),
}

fn facts() -> Facts {
    let version = ask("redis-server", "--version").unwrap_or_default();
    let version = version.split_whitespace().find_map(|word| word.strip_prefix("v="));
    Facts {
        version: version.unwrap_or("not installed").to_owned(),
        survives_kill9: Survives::Partly("yes, but for what waits while a sync runs"),
        survives_power_loss: Survives::Partly("about 1 s lost"),
        survives_power_loss_when_asked: Survives::Yes,
        acknowledgement: Acknowledgement::Leased,
        acknowledgement_survives_kill9: Survives::Partly("yes, but for what waits while a sync runs"),
        acknowledgement_survives_power_loss: Survives::Partly("about 1 s lost"),
        note: "A server, over loopback: XADD, XREADGROUP, XACK; batches are pipelined. appendfsync everysec (its default), for the durable rows always. While a sync runs, everysec holds writes back in the \
               server's memory, for up to two seconds. All \
               messages are in memory, and stay in the stream after XACK.",
        cannot: &[],
        advantages: &[
            (Workload::DurableMany, "one sync for all clients of one turn of its loop"),
            (
                Workload::DiskBytes,
                "its log is rewritten from 64 MiB on, without the commands, many messages to a node; and no preallocation",
            ),
        ],
    }
}

fn open(dir: &Path, mode: Mode) -> Result<Box<dyn Queue>> {
    let fsync = if mode == Mode::Power { "always" } else { "everysec" };
    let mut command = Command::new("redis-server");
    command
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", fsync])
        .arg("--dir")
        .arg(dir);
    let server = Server::start(
        command,
        |command, port| {
            command.arg("--port").arg(port.to_string());
        },
        |connection| Ok(call(connection, &[&[b"PING"]])? == [Reply::Text("PONG".to_owned())]),
    )?;
    let group: &[&[u8]] = &[b"XGROUP", b"CREATE", b"q", b"g", b"0", b"MKSTREAM"];
    match server.with(|connection| call(connection, &[group])) {
        Err(error) if !error.to_string().starts_with("BUSYGROUP") => Err(error),
        _ => Ok(Box::new(Redis(server))),
    }
}

/// Sends the commands together and reads all replies.
fn call(connection: &mut Connection, commands: &[&[&[u8]]]) -> Result<Vec<Reply>> {
    for words in commands {
        write!(connection.out, "*{}\r\n", words.len())?;
        for word in *words {
            write!(connection.out, "${}\r\n", word.len())?;
            connection.out.extend_from_slice(word);
            connection.out.extend_from_slice(b"\r\n");
        }
    }
    connection.flush()?;
    commands.iter().map(|_| reply(connection)).collect()
}

fn reply(connection: &mut Connection) -> Result<Reply> {
    let line = connection.line()?;
    let (kind, rest) = line.split_at_checked(1).ok_or("an empty reply")?;
    Ok(match kind {
        "+" | ":" => Reply::Text(rest.to_owned()),
        "-" => return Err(rest.to_owned().into()),
        "$" | "*" if rest == "-1" => Reply::Nil,
        "$" => Reply::Bytes(connection.body(rest.parse()?)?),
        "*" => Reply::List((0..rest.parse::<usize>()?).map(|_| reply(connection)).collect::<Result<_>>()?),
        _ => return Err(format!("a reply of kind {kind}").into()),
    })
}

impl Reply {
    fn list(self) -> Result<Vec<Self>> {
        if let Self::List(list) = self { Ok(list) } else { Err("a reply that is no list".into()) }
    }

    fn bytes(self) -> Result<Vec<u8>> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err("a reply that is no bytes".into()) }
    }

    fn last(self) -> Result<Self> {
        self.list()?.pop().ok_or_else(|| "an empty list".into())
    }
}

impl Redis {
    fn receive(&self, max: usize, block: Option<Duration>, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        let (count, wait) = (max.to_string(), block.unwrap_or_default().as_millis().max(1).to_string());
        let mut command: Vec<&[u8]> = vec![b"XREADGROUP", b"GROUP", b"g", b"c", b"COUNT", count.as_bytes()];
        if block.is_some() {
            command.extend([b"BLOCK".as_slice(), wait.as_bytes()]);
        }
        command.extend([b"STREAMS".as_slice(), b"q", b">"]);
        self.0.with(|connection| {
            let Some(found @ Reply::List(_)) = call(connection, &[&command])?.pop() else { return Ok(0) };
            let mut ids = Vec::new();
            // [[stream, [[id, [field, payload]], ...]]]
            for entry in found.last()?.last()?.list()? {
                let mut entry = entry.list()?;
                sink(&entry.pop().ok_or("an entry without fields")?.last()?.bytes()?);
                ids.push(entry.pop().ok_or("an entry without an id")?.bytes()?);
            }
            let mut done: Vec<&[u8]> = vec![b"XACK", b"q", b"g"];
            done.extend(ids.iter().map(Vec::as_slice));
            match call(connection, &[&done])?.pop() {
                Some(Reply::Text(acknowledged)) if acknowledged == ids.len().to_string() => Ok(ids.len()),
                other => Err(format!("XACK answered {other:?}").into()),
            }
        })
    }
}

impl Queue for Redis {
    fn publish(&self, payload: &[u8]) -> Result<()> {
        self.publish_batch(&[payload])
    }

    fn publish_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        let commands: Vec<[&[u8]; 5]> =
            payloads.iter().map(|payload| [b"XADD".as_slice(), b"q", b"*", b"m", payload]).collect();
        let commands: Vec<&[&[u8]]> = commands.iter().map(<[&[u8]; 5]>::as_slice).collect();
        self.0.with(|connection| call(connection, &commands))?;
        Ok(())
    }

    fn publish_durable(&self, payload: &[u8]) -> Result<()> {
        self.publish(payload)
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
        // A server that shuts down closes the connection instead of answering.
        let _ = self.0.with(|connection| call(connection, &[&[b"SHUTDOWN"]]));
        self.0.wait()
    }
}
