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

use options::Options;
use queue::{Peer, Result};
use std::ffi::OsString;
use std::process::ExitCode;
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
    for peer in absent {
        println!("{} is not installed here and is left out", peer.name);
    }
    std::fs::create_dir_all(&options.plan.dir)?;
    let machine = machine::Machine::look(&options.plan.dir)?;
    if machine.is_busy() {
        println!("warning: the machine is busy (load {:.2}): these figures say little", machine.load);
    }
    let workloads = Workload::ALL.into_iter().filter(|workload| options.wants_workload(*workload));
    let results: Vec<_> = workloads.map(|workload| (workload, options.plan.measure(workload, &present))).collect();
    println!("\n{}", report::summary(&results));
    if let Some(out) = &options.out {
        report::write(out, &machine, &options.plan, &present, &results)?;
        println!("written: {}", out.display());
    }
    Ok(())
}
