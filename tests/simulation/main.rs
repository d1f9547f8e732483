//! Deterministic simulation: the shipped engine on the simulated disk and clock, one seed a case.
//!
//! A case is a random history of operations with one or more crashes at random disk requests, also inside recovery. After
//! each crash the store is opened, checked against what was promised, used again, closed, opened, checked again, and checked
//! once more without its derived files.
//!
//! `MILLPOND_SIM_CASES` sets how many cases run (default 1,500), `MILLPOND_SIM_SEED` runs one seed and prints its trace,
//! `MILLPOND_SIM_FROM` is the first seed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails, and says what it did")]

mod case;
mod history;
mod oracle;

use case::{Case, Outcome};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Runs cases on two threads, and returns the sum of what they saw, or the first failure.
fn run(from: u64, cases: u64) -> Result<Outcome, String> {
    let next = AtomicU64::new(from);
    let sum = Mutex::new(Outcome::default());
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while failure.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + cases {
                        return;
                    }
                    match Case::new(seed).run() {
                        Ok(outcome) => sum.lock().unwrap().add(&outcome),
                        Err(what) => *failure.lock().unwrap() = Some(shrunk(seed, what)),
                    }
                }
            });
        }
    });
    failure.into_inner().unwrap().map_or_else(|| Ok(sum.into_inner().unwrap()), Err)
}

/// Looks for a shorter history of the same seed that still fails, and says how to see it again.
fn shrunk(seed: u64, what: String) -> String {
    let (mut steps, mut what) = (Case::new(seed).steps(), what);
    let mut step = steps / 2;
    while step > 0 {
        match (steps > step).then(|| Case::with_steps(seed, steps - step).run()) {
            Some(Err(shorter)) => (steps, what) = (steps - step, shorter),
            _ => step /= 2,
        }
    }
    format!(
        "seed {seed} fails with {steps} steps: {what}\nsee it with: MILLPOND_SIM_SEED={seed} MILLPOND_SIM_STEPS={steps} cargo test --test simulation one_seed -- --nocapture"
    )
}

#[test]
fn nothing_promised_is_lost_in_random_histories() {
    let cases = setting("MILLPOND_SIM_CASES").unwrap_or(1_500);
    match run(setting("MILLPOND_SIM_FROM").unwrap_or(0), cases) {
        Ok(outcome) => {
            println!("{cases} cases: {outcome}");
            outcome.require_something_happened(cases);
        }
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn one_seed() {
    let Some(seed) = setting("MILLPOND_SIM_SEED") else { return };
    let case = setting("MILLPOND_SIM_STEPS").map_or_else(|| Case::new(seed), |steps| Case::with_steps(seed, steps));
    let case = case.traced();
    if let Err(what) = case.run() {
        panic!("seed {seed}: {what}");
    }
}

#[test]
fn equal_seeds_give_equal_histories() {
    for seed in 1_000..1_030 {
        let first = Case::new(seed).run().map(|outcome| outcome.trace_hash);
        assert_eq!(first, Case::new(seed).run().map(|outcome| outcome.trace_hash), "seed {seed}");
    }
}
