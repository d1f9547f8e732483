//! Food delivery: one order becomes work for several groups, and nothing is lost on the way.
//!
//! ```text
//! cargo run --release --example food_delivery [-- --dir PATH] [--crash-after N] [--fresh]
//! ```
//!
//! An order service publishes `OrderPlaced` to the topic `orders`, keyed by customer. The groups `kitchen`,
//! `notification` and `delivery` each get every order. The kitchen makes one task of each item and publishes them to the
//! topic `prep`, where four chefs of one group share them. A soufflé collapses now and then and is tried again; what no
//! chef can cook ends in the dead letters, until the operator fixes the menu and redrives it.
//!
//! At the end everything that came out is compared with everything that went in. The process may die in the middle
//! (`--crash-after 300` aborts it at the worst moment): the next run with the same `--dir` goes on where it stopped,
//! and the sums must still agree.
//!
//! Where to look: `shop` opens topics and groups, `staff` consumes, `operator` handles dead letters, `audit` compares.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this program talks to a person at a terminal")]

mod args;
mod audit;
mod operator;
mod orders;
mod shop;
mod staff;

use args::Args;
use audit::Audit;
use shop::Shop;
use staff::Shift;
use std::path::Path;
use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    match Args::parse(std::env::args().skip(1)).and_then(|args| args.map_or(Ok(true), run)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("food_delivery: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs in the directory that was asked for, or else in one of its own that goes away when all went well.
fn run(args: Args) -> Result<bool> {
    if let Some(dir) = &args.dir {
        return deliver(dir, &args);
    }
    let dir = tempfile::Builder::new().prefix("food_delivery-").tempdir()?.keep();
    let balanced = deliver(&dir, &args)?;
    if balanced {
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(balanced)
}

/// The whole job. Returns whether what came out is what went in.
fn deliver(dir: &Path, args: &Args) -> Result<bool> {
    let input = orders::load()?;
    let shop = Shop::open(dir)?;
    let mut audit = Audit::begin(&shop)?;
    println!("{} orders to deliver; the store is {}", input.len(), dir.display());
    if !audit.orders.is_empty() {
        println!(
            "resuming: {} orders were published before, {} outcomes stand",
            audit.orders.len(),
            audit.outcomes.len()
        );
    }

    let mut shift = Shift::new(&shop, args.crash_after);
    shift.work(&input, &audit.published_ids())?;
    while operator::review_dead_letters(&shop)? > 0 {
        if shift.menu_fixed {
            return Err("the menu is fixed and there are dead letters all the same".into());
        }
        shift.menu_fixed = true;
        println!("the operator fixed the menu and redrove {} dead letters", operator::redrive(&shop)?);
        shift.work(&[], &audit.published_ids())?;
    }

    audit.catch_up(&shop)?;
    shop.store.close()?;
    Ok(audit.compare(&input))
}
