//! Runs workloads in processes of their own, again and again, and takes the median. Never here: what a workload does.

use crate::child::{FLOOR, Order, Task, parse_answer};
use crate::queue::{Peer, Result};
use crate::queues;
use crate::workload::Workload;
use crate::workloads::{Outcome, Scale};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The most messages that the receiving workloads find waiting.
const RECEIVED_MAX: u64 = 1_000_000;

/// How a whole session of measurements is done.
pub(crate) struct Plan {
    /// Where the queues put their files.
    pub(crate) dir: PathBuf,
    /// How often each figure is taken.
    pub(crate) repeats: usize,
    /// Messages waiting where an opening is measured.
    pub(crate) waiting: u64,
    /// How much otherwise.
    pub(crate) scale: Scale,
    /// The longest that one process may take.
    pub(crate) cap: Duration,
    /// How much memory is touched before a run that wants it warm.
    pub(crate) warm_bytes: usize,
}

/// All that was found about one queue and one workload.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// It cannot do that, or could not do it fast enough.
    Left(String),
    /// It failed or took too long.
    Failed(String),
    /// The median run, the extremes, and the first fault of any run.
    Measured {
        /// The median run.
        median: Outcome,
        /// The smallest figure.
        low: f64,
        /// The largest figure.
        high: f64,
        /// What was wrong with what came out of any run.
        fault: Option<String>,
    },
}

impl Plan {
    /// Runs one workload on all of `peers`, and on the bare machine where it has a floor. The runs of the queues alternate, so that a
    /// disturbance of the machine hits them alike.
    pub(crate) fn measure(&self, workload: Workload, peers: &[Peer]) -> Vec<(String, Verdict)> {
        let floor = workload.floor().map(|_| FLOOR.to_owned());
        let names: Vec<String> = peers.iter().map(|peer| peer.name.to_owned()).chain(floor).collect();
        let mut runs: Vec<Vec<Result<Outcome>>> = names.iter().map(|_| Vec::new()).collect();
        // Blocks are counted, and the same each time.
        let repeats = if workload == Workload::DiskBytes { 1 } else { self.repeats };
        for _ in 0..repeats {
            for (name, runs) in names.iter().zip(&mut runs) {
                let reason = peers
                    .iter()
                    .find(|peer| peer.name == name)
                    .and_then(|peer| (peer.facts)().reason_against(workload));
                let is_hopeless = runs.iter().any(Result::is_err);
                if reason.is_none() && !is_hopeless {
                    let start = Instant::now();
                    let run = self.run_once(workload, name);
                    // Filling and checking included.
                    let took = start.elapsed().as_secs_f64();
                    println!("{:<20} {:<16} {} ({took:.1} s)", workload.name(), name, brief(workload, &run));
                    runs.push(run);
                } else if let Some(reason) = reason {
                    runs.push(Ok(Outcome { note: Some(reason.to_owned()), ..Outcome::default() }));
                }
            }
        }
        names.into_iter().zip(runs.into_iter().map(|runs| judge(workload, runs))).collect()
    }

    fn run_once(&self, workload: Workload, name: &str) -> Result<Outcome> {
        let dir = self.dir.join(format!("{name}-{}", workload.name()));
        remove(&dir)?;
        std::fs::create_dir_all(&dir)?;
        if workload.wants_warm_memory() {
            warm_memory(self.warm_bytes);
        }
        let outcome = self.run_in(workload, name, &dir);
        remove(&dir)?;
        outcome
    }

    fn run_in(&self, workload: Workload, name: &str, dir: &Path) -> Result<Outcome> {
        let messages = match workload {
            Workload::OpenClean | Workload::OpenKilled | Workload::DiskBytes => self.waiting,
            // Filling the slower queues with more would take longer than measuring them.
            Workload::ReceiveOne | Workload::ReceiveBatch => self.waiting.min(RECEIVED_MAX),
            _ => self.scale.messages,
        };
        let scale = Scale { messages, ..self.scale };
        let order = |task| Order { queue: name.to_owned(), workload, task, dir: dir.to_owned(), scale };
        match workload {
            Workload::OpenClean => self.send(&order(Task::FillAndClose))?,
            Workload::OpenKilled => self.send(&order(Task::FillAndWait))?,
            _ => return self.send(&order(Task::Run)),
        };
        self.send(&order(Task::Open))
    }

    /// Runs a child until it answers, then kills it and all that it started.
    fn send(&self, order: &Order) -> Result<Outcome> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(order.arguments()).envs(queues::environment(&order.dir)).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (sender, answers) = mpsc::channel();
        let output = child.stdout.take().ok_or("no output")?;
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(std::result::Result::ok);
            // The receiver is gone once an answer came or the time was up.
            lines.filter_map(|line| parse_answer(&line)).for_each(|answer| drop(sender.send(answer)));
        });
        let answer = answers.recv_timeout(self.cap);
        end(child)?;
        // Ends with the last process that holds the pipe; all of them were killed.
        reader.join().map_err(|_| "the reader of a child's output panicked")?;
        match answer {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(failure)) => Err(failure.into()),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("more than {} s", self.cap.as_secs()).into()),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err("ended without an answer".into()),
        }
    }
}

/// Touches free memory. A guest whose host takes back what is free gets it again at many times what a page costs otherwise: whether a run
/// met such pages would decide its figure. Giving the memory back disturbs latencies for a while.
fn warm_memory(bytes: usize) {
    drop(std::hint::black_box(vec![1_u8; bytes]));
}

/// Kills the child's process group, which servers that it started belong to. A child answers when its queue is closed already, or is to be
/// killed with it open.
fn end(mut child: Child) -> Result<()> {
    let group = rustix::process::Pid::from_child(&child);
    // The group is gone where all of it ended by itself.
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    child.wait()?;
    // A server that is still dying holds its lock on the directory. Its remains may never be collected, so not for ever.
    let deadline = Instant::now() + Duration::from_millis(500);
    while rustix::process::test_kill_process_group(group).is_ok() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn judge(workload: Workload, runs: Vec<Result<Outcome>>) -> Verdict {
    let mut outcomes = Vec::new();
    for run in runs {
        match run {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => return Verdict::Failed(error.to_string()),
        }
    }
    let asked = outcomes.len();
    let fault = outcomes.iter().find_map(|outcome| outcome.fault.clone());
    let left = outcomes.iter().find(|outcome| outcome.figure.is_none()).and_then(|outcome| outcome.note.clone());
    outcomes.retain(|outcome| outcome.figure.is_some());
    outcomes.sort_by(|a, b| a.figure.unwrap_or(0.0).total_cmp(&b.figure.unwrap_or(0.0)));
    let ends = (outcomes.first().and_then(|run| run.figure), outcomes.last().and_then(|run| run.figure));
    // One lucky run is no figure.
    let (true, (Some(low), Some(high))) = (outcomes.len() * 2 > asked, ends) else {
        let reason = left.unwrap_or_else(|| "not measured".to_owned());
        return Verdict::Left([Some(reason), fault].into_iter().flatten().collect::<Vec<_>>().join("; "));
    };
    // Of an even number the worse of the middle two.
    let middle = if workload.unit().more_is_better() { (outcomes.len() - 1) / 2 } else { outcomes.len() / 2 };
    let median = outcomes.swap_remove(middle);
    Verdict::Measured { median, low, high, fault }
}

fn brief(workload: Workload, run: &Result<Outcome>) -> String {
    match run {
        Err(error) => format!("failed: {error}"),
        Ok(Outcome { figure: Some(figure), p99, fault, note }) => {
            let p99 = p99.map_or_else(String::new, |p99| format!(", p99 {}", workload.unit().show(p99)));
            let notes: Vec<&str> = [fault, note].into_iter().flatten().map(String::as_str).collect();
            format!("{}{p99} {}", workload.unit().show(*figure), notes.join("; "))
        }
        Ok(Outcome { note, fault, .. }) => {
            format!("- {}", [note, fault].into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(figure: f64, fault: Option<&str>) -> Result<Outcome> {
        Ok(Outcome { figure: Some(figure), fault: fault.map(str::to_owned), ..Outcome::default() })
    }

    #[test]
    fn the_median_is_taken_and_no_fault_is_hidden() {
        let verdict = judge(Workload::PublishOne, vec![run(3.0, None), run(1.0, Some("lost 1 of 9")), run(2.0, None)]);
        let Verdict::Measured { median, low, high, fault } = verdict else { panic!("{verdict:?}") };
        assert_eq!((median.figure, low, high), (Some(2.0), 1.0, 3.0));
        assert_eq!(fault.as_deref(), Some("lost 1 of 9"));
    }

    #[test]
    fn of_two_runs_the_worse_counts() {
        for (workload, worse) in [(Workload::PublishOne, 1.0), (Workload::Live, 2.0), (Workload::OpenClean, 2.0)] {
            let verdict = judge(workload, vec![run(2.0, None), run(1.0, None)]);
            let Verdict::Measured { median, .. } = verdict else { panic!("{verdict:?}") };
            assert_eq!(median.figure, Some(worse), "{}", workload.name());
        }
    }

    #[test]
    fn one_failure_is_a_failure() {
        assert!(
            matches!(judge(Workload::PublishOne, vec![run(3.0, None), Err("disk".into())]), Verdict::Failed(error) if error == "disk")
        );
    }
}
