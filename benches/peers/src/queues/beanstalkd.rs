//! beanstalkd with its binlog, over the loopback interface.

use super::server::{Connection, Server, ask};
use crate::queue::{Acknowledgement, Facts, Mode, Peer, Queue, Result, Survives};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub(super) const PEER: Peer =
    Peer { name: "beanstalkd", facts, open, is_present: || ask("beanstalkd", "-v").is_some() };

/// The most reservations asked for in advance while waiting: each that comes to nothing costs the server a reply.
const WAITING_MAX: usize = 8;

struct Beanstalkd(Server);

fn facts() -> Facts {
    let version = ask("beanstalkd", "-v").unwrap_or_default();
    Facts {
        version: version.trim().strip_prefix("beanstalkd ").unwrap_or("not installed").to_owned(),
        survives_kill9: Survives::Yes,
        survives_power_loss: Survives::Partly("up to 50 ms lost"),
        survives_power_loss_when_asked: Survives::Yes,
        acknowledgement: Acknowledgement::Leased,
        acknowledgement_survives_kill9: Survives::Yes,
        acknowledgement_survives_power_loss: Survives::Partly("up to 50 ms lost"),
        note: "A server, over loopback, with a binlog: put, reserve, delete; batches are pipelined. -f 50 (its default), for the durable rows -f 0. \
               All messages are in memory.",
        cannot: &[],
        advantages: &[],
    }
}

fn open(dir: &Path, mode: Mode) -> Result<Box<dyn Queue>> {
    let mut command = Command::new("beanstalkd");
    command.args(["-l", "127.0.0.1", "-f", if mode == Mode::Power { "0" } else { "50" }]).arg("-b").arg(dir);
    let server = Server::start(
        command,
        |command, port| {
            command.arg("-p").arg(port.to_string());
        },
        |connection| {
            connection.out.extend_from_slice(b"list-tube-used\r\n");
            connection.flush()?;
            Ok(connection.line()?.starts_with("USING"))
        },
    )?;
    Ok(Box::new(Beanstalkd(server)))
}

impl Beanstalkd {
    /// Sends `requests` reservations together, of which the first waits up to `wait` seconds, then deletes what they brought.
    fn receive(&self, requests: usize, wait: u64, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        self.0.with(|connection| {
            for request in 0..requests {
                let wait = if request == 0 { wait } else { 0 };
                write!(connection.out, "reserve-with-timeout {wait}\r\n")?;
            }
            connection.flush()?;
            let mut ids = Vec::new();
            for _ in 0..requests {
                if let Some((id, payload)) = reserved(connection)? {
                    sink(&payload);
                    ids.push(id);
                }
            }
            for id in &ids {
                write!(connection.out, "delete {id}\r\n")?;
            }
            connection.flush()?;
            ids.iter().try_for_each(|_| expect(connection, "DELETED"))?;
            Ok(ids.len())
        })
    }
}

fn reserved(connection: &mut Connection) -> Result<Option<(String, Vec<u8>)>> {
    let line = connection.line()?;
    let mut words = line.split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some("RESERVED"), Some(id), Some(len)) => Ok(Some((id.to_owned(), connection.body(len.parse()?)?))),
        (Some("TIMED_OUT"), ..) => Ok(None),
        _ => Err(line.into()),
    }
}

fn expect(connection: &mut Connection, word: &str) -> Result<()> {
    let line = connection.line()?;
    if line.starts_with(word) { Ok(()) } else { Err(line.into()) }
}

impl Queue for Beanstalkd {
    fn publish(&self, payload: &[u8]) -> Result<()> {
        self.publish_batch(&[payload])
    }

    fn publish_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        self.0.with(|connection| {
            for payload in payloads {
                write!(connection.out, "put 0 0 3600 {}\r\n", payload.len())?;
                connection.out.extend_from_slice(payload);
                connection.out.extend_from_slice(b"\r\n");
            }
            connection.flush()?;
            payloads.iter().try_for_each(|_| expect(connection, "INSERTED"))
        })
    }

    fn publish_durable(&self, payload: &[u8]) -> Result<()> {
        self.publish(payload)
    }

    fn receive_ack(&self, sink: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.receive(1, 0, sink)? > 0)
    }

    fn receive_ack_batch(&self, max: usize, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        self.receive(max, 0, sink)
    }

    fn receive_ack_wait(&self, max: usize, wait: Duration, sink: &mut dyn FnMut(&[u8])) -> Result<usize> {
        // Its timeout is in whole seconds.
        self.receive(max.min(WAITING_MAX), wait.as_secs().max(1), sink)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.0.terminate()?;
        self.0.wait()
    }
}
