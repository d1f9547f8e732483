//! Power cuts on a real ext4: `MILLPOND_EXT4_CUTS=100 .ci/ext4`.
//!
//! A store works on an ext4 on a loop device over a file that we serve through FUSE, so that every write and every flush of the
//! kernel passes here (`recorder`). Then, for one cut after another: the image as the device may be after losing power at a
//! random request, attached to an ordinary loop device, mounted (the kernel replays its journal), opened and checked
//! against what had been promised by then (`oracle`).
//!
//! `MILLPOND_EXT4_SEED` chooses the cuts. With `MILLPOND_EXT4_LIE=1` the device loses its last flush as well: a run in which the
//! oracle then finds nothing fails.

mod mounts;
mod oracle;
mod recorder;
mod work;

use mounts::Loop;
use recorder::{Event, Recorder, Watch};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const DEVICE_BYTES: usize = 64 << 20;
const SECTOR: usize = 512;
const ROUNDS: u64 = 150;
/// How ext4 is mounted while the store works. The longer commits leave it to the store's own syncs to make anything durable.
const VARIANTS: [&str; 6] = [
    "data=ordered,commit=5",
    "data=ordered,commit=1000",
    "data=writeback,commit=5",
    "data=writeback,commit=1",
    "data=journal,commit=5",
    "data=journal,commit=1000",
];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// What becomes of the writes after the last flush.
const OUTCOMES: [&str; 4] = ["none", "all", "a prefix", "some sectors"];

struct Cut {
    at: usize,
    outcome: usize,
}

#[derive(Default)]
struct Counts {
    cuts: u64,
    flushes: u64,
    writes: u64,
    promised: u64,
    unpromised: u64,
    recovered: u64,
    wrong: u64,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

fn apply(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The image that a cut leaves: `durable`, and of the writes since what the outcome says.
fn after_cut(durable: &[u8], since: &[Event], outcome: usize, random: &mut Random) -> Vec<u8> {
    let mut image = durable.to_vec();
    let kept = match outcome {
        0 => 0,
        1 | 3 => since.len(),
        _ => random.below(since.len() + 1),
    };
    for event in &since[..kept] {
        let Event::Write { at, bytes } = event else { continue };
        if outcome != 3 {
            apply(&mut image, *at, bytes);
            continue;
        }
        for (index, sector) in bytes.chunks(SECTOR).enumerate() {
            if random.next() & 1 == 0 {
                apply(&mut image, at + index * SECTOR, sector);
            }
        }
    }
    image
}

/// What the process that works is told: where, where it reads the device's position, where it leaves its history.
const WORK: &str = "MILLPOND_EXT4_WORK";

/// The process that works.
fn work_process(paths: &str) -> Result<(), String> {
    let [store, position, history] = paths.split(':').map(Path::new).collect::<Vec<_>>()[..] else {
        return Err(format!("{WORK} names three paths"));
    };
    let watch = Watch::open(position).map_err(|error| error.to_string())?;
    let done = work::History::default();
    work::work(store, &watch, &done, ROUNDS).map_err(|error| format!("the store, before any cut: {error}"))?;
    std::fs::write(history, done.to_text()).map_err(|error| error.to_string())
}

/// What one run left: the requests, from where on to cut, and what was promised.
struct Record {
    events: Vec<Event>,
    from: usize,
    history: work::History,
}

/// Lets a store work on a recorded device.
fn record(dir: &Path, options: &str) -> Result<Record, String> {
    let (served, mounted) = (dir.join("served"), dir.join("mounted"));
    let (position, history) = (dir.join("position"), dir.join("history"));
    let recorder = Recorder::new(DEVICE_BYTES, &position).map_err(|error| error.to_string())?;
    let (session, file) = recorder.serve(&served).map_err(|error| format!("FUSE: {error}"))?;
    let worked = (|| {
        let device = Loop::attach(&file)?;
        device.format()?;
        let _mount = device.mount(&mounted, options)?;
        // Also while the store is created; before that there is nothing to be lost.
        let from = recorder.position();
        let paths = [&mounted.join("store"), &position, &history].map(|path| path.display().to_string()).join(":");
        let this = std::env::current_exe().map_err(|error| error.to_string())?;
        let ended = Command::new(this).env(WORK, paths).status().map_err(|error| error.to_string())?;
        if ended.success() { Ok(from) } else { Err(format!("the process that works: {ended}")) }
    })();
    session.umount_and_join().map_err(|error| format!("FUSE: {error}"))?;
    let from = worked?;
    let history = std::fs::read_to_string(&history).map_err(|error| error.to_string())?;
    Ok(Record { events: recorder.take_events(), from, history: work::History::from_text(&history) })
}

fn check_cut(dir: &Path, image: &[u8], history: &work::History, cut: usize) -> Result<oracle::Checked, String> {
    let (file, mounted) = (dir.join("image"), dir.join("mounted"));
    std::fs::write(&file, image).map_err(|error| format!("write the image: {error}"))?;
    let device = Loop::attach(&file)?;
    let _mount = device.mount(&mounted, "rw")?;
    oracle::check(&mounted.join("store"), history, cut)
}

/// The cuts, in order of their places: half of them just around a flush.
fn choose_cuts(events: &[Event], from: usize, count: u64, random: &mut Random) -> Vec<Cut> {
    let flushes: Vec<usize> = (from..events.len()).filter(|at| matches!(events[*at], Event::Flush)).collect();
    let mut cuts: Vec<Cut> = (0..count)
        .map(|nth| {
            let anywhere = from + random.below(events.len() - from + 1);
            let near = flushes.get(random.below(flushes.len())).map_or(anywhere, |flush| flush + random.below(3));
            let at = if nth % 2 == 0 { anywhere } else { near.min(events.len()) };
            Cut { at, outcome: random.below(OUTCOMES.len()) }
        })
        .collect();
    cuts.sort_by_key(|cut| cut.at);
    cuts
}

fn run_variant(dir: &Path, options: &str, cuts: u64, random: &mut Random, counts: &mut Counts) -> Result<(), String> {
    let lie = setting("MILLPOND_EXT4_LIE", 0) == 1;
    let Record { events, from, history } = record(dir, options)?;
    let (mut durable, mut durable_upto, mut flushed) = (vec![0; DEVICE_BYTES], 0, [0, 0]);
    let mut next = 0;
    counts.writes += events.iter().filter(|event| matches!(event, Event::Write { .. })).count() as u64;
    counts.flushes += events.iter().filter(|event| matches!(event, Event::Flush)).count() as u64;
    for cut in choose_cuts(&events, from, cuts, random) {
        while next < cut.at {
            if matches!(events[next], Event::Flush) {
                flushed = [flushed[1], next];
            }
            next += 1;
        }
        let upto = if lie { flushed[0] } else { flushed[1] };
        for event in &events[durable_upto..upto.max(durable_upto)] {
            if let Event::Write { at, bytes } = event {
                apply(&mut durable, *at, bytes);
            }
        }
        durable_upto = upto.max(durable_upto);
        let outcome = if lie { 0 } else { cut.outcome };
        let image = after_cut(&durable, &events[durable_upto..cut.at], outcome, random);
        counts.cuts += 1;
        match check_cut(dir, &image, &history, cut.at) {
            Ok(checked) => {
                counts.promised += checked.promised;
                counts.unpromised += checked.unpromised;
                counts.recovered += u64::from(checked.recovered);
            }
            Err(what) => {
                counts.wrong += 1;
                let (at, outcome) = (cut.at, OUTCOMES[outcome]);
                println!("{options}: cut at request {at} of {}, kept {outcome}: {what}", events.len());
                if !lie {
                    let kept = std::env::temp_dir().join(format!("millpond-ext4-{at}.img"));
                    drop(std::fs::write(&kept, &image));
                    println!("the image is kept: {}", kept.display());
                }
            }
        }
    }
    Ok(())
}

/// What this machine lacks, if anything.
fn missing(dir: &Path) -> Option<String> {
    if let Some(path) = ["/dev/fuse", "/dev/loop-control"].into_iter().find(|path| !Path::new(path).exists()) {
        return Some(format!("there is no {path}"));
    }
    let file = dir.join("probe");
    std::fs::write(&file, vec![0; 1 << 20]).err().map(|error| error.to_string()).or_else(|| Loop::attach(&file).err())
}

fn note_counts(counts: &Counts, seconds: u64) {
    let Some(dir) = std::env::var_os("MILLPOND_COUNTS").map(PathBuf::from) else { return };
    let rows = [
        ("power cuts", counts.cuts),
        ("recorded writes", counts.writes),
        ("recorded flushes", counts.flushes),
        ("promised messages found", counts.promised),
        ("promises broken", counts.wrong),
        ("seconds", seconds),
    ];
    let text = rows.iter().fold(String::new(), |mut text, (what, count)| {
        let _ = writeln!(text, "| ext4 power cut | {what} | {count} |");
        text
    });
    std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(dir.join("ext4.rows"), text)).expect("counts are noted");
}

fn main() -> Result<(), String> {
    if let Ok(paths) = std::env::var(WORK) {
        return work_process(&paths);
    }
    let begin = Instant::now();
    let cuts = setting("MILLPOND_EXT4_CUTS", 60);
    let mut random = Random(setting("MILLPOND_EXT4_SEED", 1));
    let dir = std::env::temp_dir().join(format!("millpond-ext4-{}", std::process::id()));
    for name in ["served", "mounted"] {
        std::fs::create_dir_all(dir.join(name)).map_err(|error| error.to_string())?;
    }
    if let Some(what) = missing(&dir) {
        println!("SKIPPED: power cuts on a real ext4 need root, loop devices and FUSE: {what}");
        return Ok(());
    }
    let mut counts = Counts::default();
    let shares = (0..VARIANTS.len() as u64).map(|nth| (cuts + nth) / VARIANTS.len() as u64);
    let ran = VARIANTS.iter().zip(shares).try_for_each(|(options, share)| {
        let begin = Instant::now();
        run_variant(&dir, options, share, &mut random, &mut counts)?;
        println!("{options}: {share} cuts in {:?}", begin.elapsed());
        Ok::<_, String>(())
    });
    drop(std::fs::remove_dir_all(&dir));
    ran?;
    println!(
        "{} cuts, {} wrong; {} writes and {} flushes recorded; {} messages were promised and there, {} there unpromised; \
         recovery had to copy or drop in {}",
        counts.cuts, counts.wrong, counts.writes, counts.flushes, counts.promised, counts.unpromised, counts.recovered
    );
    note_counts(&counts, begin.elapsed().as_secs());
    match (setting("MILLPOND_EXT4_LIE", 0) == 1, counts.wrong) {
        (false, 0) => Ok(()),
        (true, 0) => Err("a device that loses flushes was not found out".to_owned()),
        (false, _) => Err("promises were broken".to_owned()),
        (true, _) => Ok(()),
    }
}
