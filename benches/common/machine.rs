//! Facts about the machine, from the kernel: what it is, and what its disk and this process have used.
//!
//! No host names, no paths: what is found here is published. Never here: measurements of millpond.

use super::{now, pick};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The most memory that is touched before a run.
const WARM_LEN: u64 = 4 << 30;

/// One line that says where the figures were taken; the data is in `directory`.
pub(crate) fn facts(directory: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = kib("MemTotal").map_or_else(|| "unknown".to_owned(), |kib| format!("{} GiB", (kib + (1 << 19)) >> 20));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let file_system = file_system(directory).unwrap_or_else(|| "unknown".to_owned());
    format!(
        "{date}; {cores} cores ({processor}), {memory} of memory, Linux {kernel}, data on {file_system}",
        date = today(),
        kernel = kernel.trim(),
    )
}

/// The value of `name: value` in a file of such lines.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The kind of file system that holds `directory`: that of the longest mount point above it, the last one mounted there.
fn file_system(directory: &Path) -> Option<String> {
    let directory = directory.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        Some((mount.split(' ').nth(4)?, kind.split(' ').next()?))
    });
    let above = mounts.filter(|(point, _)| directory.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind.to_owned())
}

/// Today in UTC, as year-month-day.
fn today() -> String {
    let days = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    let (year, month, day) = civil(days);
    format!("{year}-{month:02}-{day:02}")
}

/// The date `days` days after 1970-01-01. Years are counted from March, so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let since_march_0 = days + 719_468;
    let (era, day_of_era) = (since_march_0 / 146_097, since_march_0 % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day_of_year - (153 * month_from_march + 2) / 5 + 1)
}

/// Touches free memory, more of it than a run takes, since the kernel may give other pages first. A guest whose host takes back what is
/// free gets it again at some 12 us a page, many times what the page costs otherwise: whether a run met such pages would decide its
/// figures. Not before latencies are measured: giving the memory back disturbs them for a while.
pub(crate) fn warm_memory() {
    let available = kib("MemAvailable").map_or(0, |kib| kib << 10) / 4;
    drop(std::hint::black_box(vec![1_u8; pick(available.min(WARM_LEN), 0) as usize]));
}

/// A size in `/proc/meminfo`.
fn kib(name: &str) -> Option<u64> {
    field("/proc/meminfo", name)?.split(' ').next()?.parse().ok()
}

/// Bytes written so far to the device that holds `path`, by everybody; else those that this process made the kernel write.
pub(crate) fn bytes_written(path: &Path) -> Option<u64> {
    let device = fs::metadata(path).ok()?.dev();
    let stat = format!("/sys/dev/block/{}:{}/stat", rustix::fs::major(device), rustix::fs::minor(device));
    match fs::read_to_string(stat) {
        Ok(line) => Some(line.split_whitespace().nth(6)?.parse::<u64>().ok()? * 512),
        Err(_) => field("/proc/self/io", "write_bytes")?.parse().ok(),
    }
}

/// Private memory of this process, in bytes.
pub(crate) fn private_bytes() -> u64 {
    let kib = field("/proc/self/status", "RssAnon").and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// Bytes that the files in `directory` occupy on disk.
pub(crate) fn occupied_bytes(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).expect("read the directory").filter_map(|file| file.ok()?.metadata().ok());
    files.map(|file| file.blocks() * 512).sum()
}

/// Nanoseconds that reading the clock takes: part of every latency measured call by call.
pub(crate) fn clock_ns() -> f64 {
    let start = now();
    for _ in 0..10_000 {
        std::hint::black_box(now());
    }
    start.elapsed().as_nanos() as f64 / 10_000.0
}
