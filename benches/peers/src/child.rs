//! A process that does one run: what the parent tells it, and how it answers.
//!
//! The answer is one line with a mark before it, because some of the peers write to the standard output too.

use crate::floors;
use crate::queue::{Failure, Peer, Result};
use crate::queues;
use crate::workload::Workload;
use crate::workloads::{self, Outcome, Scale};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The first argument of a child.
pub(crate) const FLAG: &str = "--child";
/// The name of the floor among the queues.
pub(crate) const FLOOR: &str = "floor";
const MARK: &str = "@@ ";
const FAILURE_MARK: &str = "@! ";

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// The whole workload.
    Run,
    /// Fill a queue, close it, end.
    FillAndClose,
    /// Fill a queue, say so, wait to be killed.
    FillAndWait,
    /// Open what was filled.
    Open,
}

/// One run in a process of its own.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// The queue, or [`FLOOR`].
    pub(crate) queue: String,
    /// The workload.
    pub(crate) workload: Workload,
    /// The part of it.
    pub(crate) task: Task,
    /// The directory of the queue.
    pub(crate) dir: PathBuf,
    /// How much.
    pub(crate) scale: Scale,
}

impl Order {
    /// The arguments that [`Order::parse`] takes.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let task = match self.task {
            Task::Run => "run",
            Task::FillAndClose => "fill-and-close",
            Task::FillAndWait => "fill-and-wait",
            Task::Open => "open",
        };
        let Scale { messages, limit, threads } = self.scale;
        let words = [FLAG, &self.queue, self.workload.name(), task].map(OsString::from);
        let numbers = [messages.to_string(), limit.as_millis().to_string(), threads.to_string()].map(OsString::from);
        words.into_iter().chain(numbers).chain([self.dir.clone().into()]).collect()
    }

    /// Reads the arguments after [`FLAG`].
    pub(crate) fn parse(arguments: &[OsString]) -> Result<Self> {
        let [queue, workload, task, messages, limit, threads, dir] = arguments else {
            return Err("a child takes seven arguments".into());
        };
        let text = |argument: &OsString| argument.to_str().map(str::to_owned).ok_or("an argument that is not UTF-8");
        let task = match text(task)?.as_str() {
            "run" => Task::Run,
            "fill-and-close" => Task::FillAndClose,
            "fill-and-wait" => Task::FillAndWait,
            "open" => Task::Open,
            other => return Err(format!("no task {other}").into()),
        };
        let limit = Duration::from_millis(text(limit)?.parse()?);
        let scale = Scale { messages: text(messages)?.parse()?, limit, threads: text(threads)?.parse()? };
        let workload = Workload::of_name(&text(workload)?).ok_or("no such workload")?;
        Ok(Self { queue: text(queue)?, workload, task, dir: dir.into(), scale })
    }

    /// Does it, and answers on the standard output.
    pub(crate) fn obey(&self) -> Result<()> {
        std::thread::spawn(die_with_parent);
        if self.queue == FLOOR {
            return answer(&floors::run(self.workload, &self.dir, self.scale)?);
        }
        let peer = queues::all().into_iter().find(|peer| peer.name == self.queue).ok_or("no such queue")?;
        match self.task {
            Task::Run => answer(&workloads::run(self.workload, &peer, &self.dir, self.scale)?),
            Task::Open => answer(&workloads::measure_open(&peer, &self.dir, self.scale)?),
            Task::FillAndClose => {
                workloads::fill(&peer, &self.dir, self.scale)?.close()?;
                answer(&Outcome::default())
            }
            Task::FillAndWait => fill_and_wait(&peer, &self.dir, self.scale),
        }
    }
}

fn fill_and_wait(peer: &Peer, dir: &Path, scale: Scale) -> Result<()> {
    let queue = workloads::fill(peer, dir, scale)?;
    answer(&Outcome::default())?;
    // The parent kills this process while it waits here.
    die_with_parent();
    drop(queue);
    Err("nobody killed this process".into())
}

/// Waits until the parent is gone, which ends the input; then kills this process and the servers that it started: they are one group.
fn die_with_parent() {
    // Whatever ends it.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let _ = rustix::process::kill_process_group(rustix::process::getpid(), rustix::process::Signal::KILL);
}

fn answer(outcome: &Outcome) -> Result<()> {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let text = |value: &Option<String>| value.clone().unwrap_or_default().replace(['\t', '\n'], " ");
    let fields = [number(outcome.figure), number(outcome.p99), text(&outcome.fault), text(&outcome.note)];
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{MARK}{}", fields.join("\t"))?;
    Ok(out.flush()?)
}

/// Answers that the order failed.
pub(crate) fn answer_failure(failure: &Failure) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{FAILURE_MARK}{}", failure.to_string().replace('\n', " "))?;
    Ok(out.flush()?)
}

/// The answer in a line of a child's output, if it is one: the outcome, or why there is none.
pub(crate) fn parse_answer(line: &str) -> Option<std::result::Result<Outcome, String>> {
    if let Some(failure) = line.strip_prefix(FAILURE_MARK) {
        return Some(Err(failure.to_owned()));
    }
    let mut fields = line.strip_prefix(MARK)?.split('\t');
    let (figure, p99, fault, note) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let text = |field: &str| (!field.is_empty()).then(|| field.to_owned());
    Some(Ok(Outcome { figure: figure.parse().ok(), p99: p99.parse().ok(), fault: text(fault), note: text(note) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_back() {
        let scale = Scale { messages: 7, limit: Duration::from_millis(1500), threads: 64 };
        let order =
            Order { queue: "sled".to_owned(), workload: Workload::Live, task: Task::Open, dir: "/a b".into(), scale };
        let read = Order::parse(&order.arguments()[1..]).unwrap();
        assert_eq!(
            (read.queue, read.workload, read.task, read.dir, read.scale),
            ("sled".to_owned(), Workload::Live, Task::Open, "/a b".into(), scale)
        );
    }

    #[test]
    fn an_answer_is_found_among_other_output() {
        assert_eq!(parse_answer("[walrus] new"), None);
        assert_eq!(parse_answer("@! no disk"), Some(Err("no disk".to_owned())));
        let outcome = parse_answer("@@ 12.5\t\tlost 1 of 2\t").unwrap();
        let expected = Outcome { figure: Some(12.5), fault: Some("lost 1 of 2".to_owned()), ..Outcome::default() };
        assert_eq!(outcome, Ok(expected));
    }
}
