//! The command line.

use crate::Result;
use std::path::{Path, PathBuf};

const USAGE: &str = "usage: food_delivery [--dir PATH] [--crash-after N] [--fresh]

  --dir PATH        keep the store there; a later run with the same PATH goes on where this one stopped
  --crash-after N   abort the process when N messages have been handled
  --fresh           remove what an earlier run left in PATH first";

pub(crate) struct Args {
    pub(crate) dir: Option<PathBuf>,
    pub(crate) crash_after: Option<u64>,
}

impl Args {
    /// What the command line says; `None` where help was asked for, which this prints.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let mut args = Self { dir: None, crash_after: None };
        let mut fresh = false;
        while let Some(word) = words.next() {
            match word.as_str() {
                "--dir" => args.dir = Some(words.next().ok_or("--dir needs a path")?.into()),
                "--crash-after" => {
                    let count = words.next().ok_or("--crash-after needs a number")?;
                    args.crash_after = Some(count.parse().map_err(|error| format!("--crash-after {count}: {error}"))?);
                }
                "--fresh" => fresh = true,
                "--help" | "-h" => {
                    println!("{USAGE}");
                    return Ok(None);
                }
                other => return Err(format!("{other}: unknown\n{USAGE}").into()),
            }
        }
        if let (true, Some(dir)) = (fresh, &args.dir) {
            remove_store(dir)?;
        }
        Ok(Some(args))
    }
}

/// Removes a directory only if a store lives in it: a typing error must not cost anyone their files.
fn remove_store(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    if !dir.join("STORE").exists() {
        return Err(format!("--fresh: {} is not a store, so it stays", dir.display()).into());
    }
    Ok(std::fs::remove_dir_all(dir)?)
}
