//! The command line.

use crate::queue::Result;
use crate::queues;
use crate::runner::Plan;
use crate::workload::Workload;
use crate::workloads::Scale;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const HELP: &str = "\
usage: millpond-peers [--quick] [--only NAME[,NAME...]] [--dir PATH] [--out FILE] [--waiting N] [--repeat N]

  --tiny         one run of each with next to nothing: what the tests do
  --quick        one run of each, shorter: to see that all works, not to quote
  --only NAMES   only these queues and workloads; nothing is written unless --out says where
  --dir PATH     where the queues put their files (default: target/peers-data beside this crate's build)
  --out FILE     the page (default: docs/measured/comparison.md); its plots go to a directory plots beside it
  --waiting N    messages waiting where an opening is measured (default 500000, up to 5000000)
  --repeat N     runs of each, of which the median counts (default 3)";

/// Where the page belongs.
const PAGE: &str = "docs/measured/comparison.md";
/// The most messages waiting.
const WAITING_MAX: u64 = 5_000_000;

/// What the command line asked for.
pub(crate) struct Options {
    /// What to measure and how.
    pub(crate) plan: Plan,
    /// The page to write.
    pub(crate) out: Option<PathBuf>,
    /// What asked for this, as it stands behind the command, but for paths.
    pub(crate) shown: String,
    only: Vec<String>,
}

/// How much is measured.
#[derive(Clone, Copy)]
enum Size {
    Tiny,
    Quick,
    Full,
}

impl Size {
    fn plan(self, dir: PathBuf) -> Plan {
        let (repeats, waiting, messages, limit_ms, threads, cap_s, warm_gib) = match self {
            Self::Tiny => (1, 1_500, 500, 200, 4, 60, 0),
            Self::Quick => (1, 200_000, 400_000, 1_000, 64, 60, 2),
            Self::Full => (3, 500_000, 2_000_000, 1_500, 64, 120, 2),
        };
        let scale = Scale { messages, limit: Duration::from_millis(limit_ms), threads };
        Plan { dir, repeats, waiting, scale, cap: Duration::from_secs(cap_s), warm_bytes: warm_gib << 30 }
    }
}

impl Options {
    /// Reads the arguments; none where help was asked for.
    pub(crate) fn parse(arguments: &[OsString]) -> Result<Option<Self>> {
        let mut only = Vec::new();
        let (mut size, mut dir, mut out, mut waiting, mut repeats) = (Size::Full, None, None, None, None);
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{} needs a value", word.display()));
            match word.to_str() {
                Some("--quick") => size = Size::Quick,
                Some("--tiny") => size = Size::Tiny,
                Some("--only") => only.extend(text(value()?)?.split(',').map(str::to_owned)),
                Some("--dir") => dir = Some(PathBuf::from(value()?)),
                Some("--out") => out = Some(PathBuf::from(value()?)),
                Some("--waiting") => waiting = Some(text(value()?)?.parse::<u64>()?),
                Some("--repeat") => repeats = Some(text(value()?)?.parse::<usize>()?),
                Some("--help" | "-h") => return Ok(None),
                _ => return Err(format!("no option {}\n{HELP}", word.display()).into()),
            }
        }
        check_names(&only)?;
        if waiting.is_some_and(|waiting| !(1..=WAITING_MAX).contains(&waiting)) || repeats == Some(0) {
            return Err(format!("--waiting takes 1 to {WAITING_MAX}, --repeat at least 1").into());
        }
        let out = out.or_else(|| only.is_empty().then(|| PathBuf::from(PAGE)));
        let dir = dir.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/peers-data"));
        let plan = size.plan(std::path::absolute(dir)?);
        let plan = Plan { repeats: repeats.unwrap_or(plan.repeats), waiting: waiting.unwrap_or(plan.waiting), ..plan };
        Ok(Some(Self { plan, out, shown: shown(arguments), only }))
    }

    /// Whether this queue is to be measured.
    pub(crate) fn wants(&self, queue: &str) -> bool {
        let mut queues = self.only.iter().filter(|name| Workload::of_name(name).is_none()).peekable();
        queues.peek().is_none() || queues.any(|name| name == queue)
    }

    /// Whether this workload is to be measured.
    pub(crate) fn wants_workload(&self, workload: Workload) -> bool {
        let mut workloads = self.only.iter().filter_map(|name| Workload::of_name(name)).peekable();
        workloads.peek().is_none() || workloads.any(|wanted| wanted == workload)
    }
}

/// Paths are those of one machine, and the page's own is the usual one.
fn shown(arguments: &[OsString]) -> String {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let mut shown = String::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word {
            "--dir" => drop(words.next()),
            "--out" => {
                if words.next() == Some(PAGE) {
                    shown.extend([" --out ", PAGE]);
                }
            }
            _ => shown.extend([" ", word]),
        }
    }
    if shown.is_empty() { shown } else { format!(" --{shown}") }
}

fn text(argument: &OsString) -> Result<&str> {
    argument.to_str().ok_or_else(|| "an argument that is not UTF-8".into())
}

fn check_names(only: &[String]) -> Result<()> {
    let queues: Vec<&str> = queues::all().iter().map(|peer| peer.name).collect();
    let workloads = Workload::ALL.map(Workload::name);
    match only.iter().find(|name| !queues.contains(&name.as_str()) && !workloads.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            Err(format!("no {name}; queues: {}; workloads: {}", queues.join(" "), workloads.join(" ")).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Option<Options>> {
        Options::parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_part_does_not_overwrite_the_page_unasked() {
        assert_eq!(parse(&[]).unwrap().unwrap().out, Some("docs/measured/comparison.md".into()));
        assert_eq!(parse(&["--only", "sled"]).unwrap().unwrap().out, None);
        assert_eq!(parse(&["--only", "sled", "--out", "x.md"]).unwrap().unwrap().out, Some("x.md".into()));
    }

    #[test]
    fn only_takes_queues_and_workloads() {
        let options = parse(&["--only", "sled,live", "--only", "redb"]).unwrap().unwrap();
        assert!(options.wants("sled") && options.wants("redb") && !options.wants("fjall"));
        assert!(options.wants_workload(Workload::Live) && !options.wants_workload(Workload::Durable));
        let options = parse(&["--only", "live"]).unwrap().unwrap();
        assert!(options.wants("fjall"));
    }

    #[test]
    fn the_page_shows_the_command_without_paths() {
        let shown = |words: &[&str]| parse(words).unwrap().unwrap().shown;
        assert_eq!(shown(&[]), "");
        assert_eq!(shown(&["--out", "docs/measured/comparison.md"]), " -- --out docs/measured/comparison.md");
        assert_eq!(shown(&["--quick", "--dir", "/secret", "--out", "/tmp/x.md"]), " -- --quick");
    }

    #[test]
    fn nonsense_is_refused() {
        for words in [&["--only", "kafka"][..], &["--waiting", "0"], &["--waiting"], &["--repeat", "0"], &["--fast"]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
