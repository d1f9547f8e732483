//! Runs the same workloads on millpond, on its peers and on the bare machine, and writes a page of tables and plots.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml -- --help` says how.

mod child;
mod floors;
mod machine;
mod options;
mod payload;
mod plot;
mod queue;
mod queues;
mod report;
mod runner;
mod workload;
mod workloads;
#[path = "../../common/wrap.rs"]
mod wrap;

use options::Options;
use queue::{Peer, Result};
use report::Session;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;
use workload::Workload;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let done = match arguments.split_first() {
        Some((flag, rest)) if flag == child::FLAG => {
            child::Order::parse(rest).and_then(|order| order.obey()).or_else(|error| child::answer_failure(&error))
        }
        _ => run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[OsString]) -> Result<()> {
    let Some(options) = Options::parse(arguments)? else {
        println!("{}", options::HELP);
        return Ok(());
    };
    let peers: Vec<Peer> = queues::all().into_iter().filter(|peer| options.wants(peer.name)).collect();
    let (present, absent): (Vec<Peer>, Vec<Peer>) = peers.into_iter().partition(|peer| (peer.is_present)());
    for peer in &absent {
        println!("SKIPPED: {} is not installed here and is left out", peer.name);
    }
    std::fs::create_dir_all(&options.plan.dir)?;
    let machine = machine::Machine::look(&options.plan.dir)?;
    if machine.is_busy() {
        println!("warning: the machine is busy (load {:.2}): these figures say little", machine.load);
    }
    let session =
        Session { machine: &machine, plan: &options.plan, arguments: &options.shown, peers: &present, absent: &absent };
    let mut missing: VecDeque<Workload> =
        Workload::ALL.into_iter().filter(|workload| options.wants_workload(*workload)).collect();
    let mut results = Vec::new();
    while let Some(workload) = missing.pop_front() {
        let start = Instant::now();
        results.push((workload, options.plan.measure(workload, &present)));
        println!("{}: {:.0} s", workload.name(), start.elapsed().as_secs_f64());
        // After each, so that a run that dies leaves what it has.
        if let Some(out) = &options.out {
            report::write(out, &session, &results, missing.make_contiguous())?;
        }
    }
    println!("\n=== summary\n{}", report::summary(&results));
    if let Some(out) = &options.out {
        println!("written: {}", out.display());
    }
    Ok(())
}
