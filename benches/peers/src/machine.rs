//! What the page says about the machine and the day. Nothing that names the machine.

use crate::queue::Result;
use rustix::fs::statfs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The machine on which something was measured.
pub(crate) struct Machine {
    cores: usize,
    cpu: String,
    memory_gib: f64,
    kernel: String,
    file_system: String,
    /// Processes that wanted to run during the last minute.
    pub(crate) load: f64,
    date: String,
}

impl Machine {
    /// Looks at this machine, and at the file system of `dir`.
    pub(crate) fn look(dir: &Path) -> Result<Self> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let load = std::fs::read_to_string("/proc/loadavg")?;
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            memory_gib: field("/proc/meminfo", "MemTotal").and_then(kib).unwrap_or(0.0) / f64::from(1 << 20),
            kernel: kernel_version(&rustix::system::uname().release().to_string_lossy()),
            file_system: file_system_name(statfs(dir)?.f_type as u64),
            load: load.split(' ').next().unwrap_or_default().parse()?,
            date: date(seconds / 86_400),
        })
    }

    /// Whether something else is running.
    pub(crate) fn is_busy(&self) -> bool {
        self.load > 0.5
    }

    /// All of it in one line.
    pub(crate) fn line(&self) -> String {
        let Self { cores, cpu, memory_gib, kernel, file_system, load, date } = self;
        format!(
            "{date}; {cores} cores, {cpu}; {memory_gib:.0} GiB; Linux {kernel}; {file_system}; load before the first run {load:.2}"
        )
    }
}

/// Flushes of the device that holds a directory, by everybody, since some moment.
pub(crate) struct Flushes {
    stat: Option<PathBuf>,
    before: Option<u64>,
}

impl Flushes {
    /// Begins to count, where the kernel tells.
    pub(crate) fn begin(dir: &Path) -> Self {
        let device = std::fs::metadata(dir).map(|metadata| metadata.dev()).ok();
        let number =
            |device| format!("/sys/dev/block/{}:{}/stat", rustix::fs::major(device), rustix::fs::minor(device));
        let stat = device.map(number).map(PathBuf::from);
        let before = stat.as_deref().and_then(flushes);
        Self { stat, before }
    }

    /// How many there were for each of `count` messages or batches.
    pub(crate) fn note(&self, count: u64, what: &str) -> Option<String> {
        let flushed = flushes(self.stat.as_deref()?)?.checked_sub(self.before?)?;
        let each = flushed as f64 / count.max(1) as f64;
        Some(if each < 0.1 { format!("{each:.3} flushes a {what}") } else { format!("{each:.1} flushes a {what}") })
    }
}

/// The sixteenth figure of a device's statistics.
fn flushes(stat: &Path) -> Option<u64> {
    std::fs::read_to_string(stat).ok()?.split_whitespace().nth(15)?.parse().ok()
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let (_, value) = text.lines().find(|line| line.starts_with(name))?.split_once(':')?;
    Some(value.trim().to_owned())
}

fn kib(value: String) -> Option<f64> {
    value.split(' ').next()?.parse().ok()
}

/// The numbers only: what a distributor or a host adds after them may name the host.
fn kernel_version(release: &str) -> String {
    release.split(|c: char| c != '.' && !c.is_ascii_digit()).next().unwrap_or_default().to_owned()
}

fn file_system_name(magic: u64) -> String {
    match magic {
        0xef53 => "ext4".to_owned(),
        0x5846_5342 => "xfs".to_owned(),
        0x9123_683e => "btrfs".to_owned(),
        0x0102_1994 => "tmpfs (nothing here is durable)".to_owned(),
        0x794c_7630 => "overlayfs".to_owned(),
        0x2fc1_2fc1 => "zfs".to_owned(),
        other => format!("file system {other:#x}"),
    }
}

/// The date of a day since 1970-01-01, in the proleptic Gregorian calendar.
fn date(day: u64) -> String {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    format!("{}-{month:02}-{day:02}", year + era * 400 + u64::from(month <= 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(19_782), "2024-02-29");
        assert_eq!(date(20_453), "2025-12-31");
    }

    #[test]
    fn a_kernel_is_named_by_its_numbers() {
        assert_eq!(kernel_version("6.18.44-fc-v657"), "6.18.44");
        assert_eq!(kernel_version("6.1.0-13-amd64"), "6.1.0");
    }
}
