//! The public API against a naive queue: random operations, crashes and power cuts on a simulated disk.
//!
//! `MILLPOND_MODEL_CASES` sets how many runs each test makes, `MILLPOND_MODEL_SEED` which ones. A failure prints the
//! smallest run that was found to fail, in a form that can be pasted below as a test, and what happened in it.

mod actions;
mod dedup;
mod delivering;
mod facts;
mod item;
mod letters;
mod log_reader;
mod notices;
mod numbers;
mod ops;
mod publishing;
mod reference;
mod regressions;
mod removal;
mod restart;
mod runner;
mod seek;
mod transaction;

use ops::{CALLED, NOT_CALLED, Run};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

const CASES: u32 = 1_000;
const OPS_MAX: usize = 60;

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn explore(stream: u8, ops_max: usize) {
    let (cases, seed) = (number("MILLPOND_MODEL_CASES", CASES), number("MILLPOND_MODEL_SEED", 1u64));
    let mut key = [stream; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &key));
    let result = runner.run(&ops::run(ops_max), |run| runner::execute(&run).map_err(TestCaseError::fail));
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, run)) => panic!("seed {seed}: {reason}\n\n{}", shown(&run)),
        Err(TestError::Abort(reason)) => panic!("seed {seed}: {reason}"),
    }
}

fn shown(run: &Run) -> String {
    let mut text = format!("Run {{\n    seed: {},\n    opening: {:?},\n    ops: vec![\n", run.seed, run.opening);
    for op in &run.ops {
        let _ = writeln!(text, "        Op::{op:?},");
    }
    text + "    ],\n}"
}

#[test]
fn long_runs_go_as_the_reference_says() {
    explore(1, OPS_MAX);
}

#[test]
fn short_runs_go_as_the_reference_says() {
    explore(2, OPS_MAX / 4);
}

/// Every public function of the handles is called by an operation, or is named with the reason why not.
#[test]
fn no_public_function_is_forgotten() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    let mut public = BTreeSet::new();
    for entry in std::fs::read_dir(sources).unwrap() {
        let source = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let mut owner = "";
        for line in source.lines() {
            if let Some(rest) = line.strip_prefix("impl") {
                let rest = rest.rsplit(" for ").next().unwrap_or(rest);
                // Generics of the implementation come before the type.
                let rest = rest.strip_prefix("<T> ").unwrap_or(rest);
                owner = rest
                    .trim_start_matches(|c: char| !c.is_uppercase())
                    .split(|c: char| !c.is_alphanumeric())
                    .next()
                    .unwrap();
            }
            let function = line.trim_start().strip_prefix("pub ").map(|rest| rest.trim_start_matches("const "));
            if let Some(name) = function.and_then(|rest| rest.strip_prefix("fn ")) {
                public.insert(format!("{owner}::{}", name.split(['(', '<']).next().unwrap()));
            }
        }
    }
    let not_called = NOT_CALLED.iter().flat_map(|(_, names)| *names);
    let known: BTreeSet<String> = CALLED.iter().chain(not_called).map(|name| (*name).to_owned()).collect();
    let forgotten: Vec<_> = public.difference(&known).collect();
    assert!(forgotten.is_empty(), "no operation calls {forgotten:?}; add one to the table in ops.rs");
    let gone: Vec<_> = known.difference(&public).collect();
    assert!(gone.is_empty(), "ops.rs names {gone:?}, which are not there");
}
