//! System calls that fail: each kind that the disk layer makes, the nth of it, on a real directory.
//!
//! A child does a small fixed piece of work under ptrace and says what it was promised; one of its calls fails. Then the parent
//! opens the directory, with nothing that fails, and checks. `MILLPOND_SYSCALL_SHARE` says how many calls of each
//! kind meet each failure, spread over all of them; `0`: all, until a run passes in which nothing failed.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::disallowed_methods, reason = "how long a level took is noted; nothing is decided by it")]

#[path = "../common/child.rs"]
mod child;
#[path = "../common/counts.rs"]
mod counts;
#[path = "../common/memory.rs"]
mod memory;
mod promises;
mod tracer;
mod workload;

use promises::Promises;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;
use tracer::Outcome::{self, Errno, Short};
use tracer::{Call, Fault, Struck, Traced};

/// Not a test: the body of the child.
#[test]
fn child_process() {
    match child::task() {
        Some((task, dir)) if task == "leave" => workload::leave(&dir),
        Some((_, dir)) => workload::work(&dir),
        None => {}
    }
}

/// The calls of the disk layer, and what each can meet.
const CALLS: &[(i64, &str, &[Outcome])] = &[
    (libc::SYS_open, "open", &[Errno(libc::EIO), Errno(libc::EMFILE), Errno(libc::EINTR)]),
    (libc::SYS_openat, "openat", &[Errno(libc::EIO), Errno(libc::EMFILE), Errno(libc::ENOSPC), Errno(libc::EINTR)]),
    (
        libc::SYS_fallocate,
        "fallocate",
        &[Errno(libc::EIO), Errno(libc::ENOSPC), Errno(libc::EINTR), Errno(libc::EFBIG)],
    ),
    (libc::SYS_ftruncate, "ftruncate", &[Errno(libc::EIO), Errno(libc::EINTR)]),
    (libc::SYS_fdatasync, "fdatasync", &[Errno(libc::EIO), Errno(libc::ENOSPC)]),
    (libc::SYS_fsync, "fsync", &[Errno(libc::EIO)]),
    (libc::SYS_pwritev, "pwritev", &[Errno(libc::EIO), Errno(libc::ENOSPC), Errno(libc::EINTR), Short]),
    (libc::SYS_pwrite64, "pwrite64", &[Errno(libc::EIO), Short]),
    (libc::SYS_pread64, "pread64", &[Errno(libc::EIO), Errno(libc::EINTR), Short]),
    (libc::SYS_mmap, "mmap", &[Errno(libc::ENOMEM)]),
    (libc::SYS_madvise, "madvise", &[Errno(libc::EINVAL)]),
    (libc::SYS_unlinkat, "unlinkat", &[Errno(libc::EIO), Errno(libc::EINTR)]),
    (libc::SYS_flock, "flock", &[Errno(libc::EIO), Errno(libc::EINTR), Errno(libc::EWOULDBLOCK)]),
    (libc::SYS_statfs, "statfs", &[Errno(libc::EIO)]),
    (libc::SYS_fstatfs, "fstatfs", &[Errno(libc::EIO)]),
    (libc::SYS_getdents64, "getdents64", &[Errno(libc::EIO), Errno(libc::EINTR)]),
    (libc::SYS_newfstatat, "newfstatat", &[Errno(libc::EIO)]),
    (libc::SYS_fstat, "fstat", &[Errno(libc::EIO)]),
    (libc::SYS_statx, "statx", &[Errno(libc::EIO)]),
    (libc::SYS_fchmod, "fchmod", &[Errno(libc::EIO)]),
    (libc::SYS_chmod, "chmod", &[Errno(libc::EIO)]),
    (libc::SYS_mkdir, "mkdir", &[Errno(libc::EIO), Errno(libc::ENOSPC)]),
    (libc::SYS_faccessat, "faccessat", &[Errno(libc::EROFS)]),
    (libc::SYS_faccessat2, "faccessat2", &[Errno(libc::EROFS)]),
    (libc::SYS_fcntl, "fcntl", &[Errno(libc::EMFILE)]),
    (libc::SYS_readlink, "readlink", &[Errno(libc::EIO)]),
    (libc::SYS_lseek, "lseek", &[Errno(libc::EIO), Errno(libc::EINTR)]),
    (libc::SYS_getrandom, "getrandom", &[Errno(libc::ENOSYS)]),
];

/// Calls that are not the disk layer's, or cannot fail in a way that somebody could act upon.
const OTHERS: &[i64] = &[
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_brk,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_geteuid,
    libc::SYS_getegid,
    libc::SYS_getuid,
    libc::SYS_getgid,
    libc::SYS_clock_getres,
];

fn name(call: i64) -> &'static str {
    CALLS.iter().find(|(number, ..)| *number == call).map_or("another call", |(_, name, _)| name)
}

/// Where the child begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    /// There is nothing yet.
    Fresh,
    /// A process was killed in the directory.
    Left,
    /// The same, on a file system that allocates no blocks, so that nothing is mapped.
    LeftUnmapped,
}

impl Scene {
    fn always(self) -> &'static [(i64, i32)] {
        if self == Self::LeftUnmapped { &[(libc::SYS_fallocate, libc::EOPNOTSUPP)] } else { &[] }
    }
}

/// One way to begin, with the directory that it begins with.
struct Rig {
    scene: Scene,
    left: tempfile::TempDir,
}

/// What came of one child.
struct Run {
    traced: Traced,
    promises: Promises,
    _directory: tempfile::TempDir,
    store: PathBuf,
}

impl Rig {
    fn new(scene: Scene) -> Self {
        let left = memory::directory();
        if scene != Scene::Fresh {
            let status = child::run(child::command("child_process", "leave", left.path()), |_| ());
            assert!(status.success(), "{status}");
        }
        Self { scene, left }
    }

    /// Runs a child under the fault, or says why it cannot be traced.
    fn run(&self, fault: Option<Fault>) -> Result<Run, String> {
        let directory = memory::directory();
        let store = directory.path().join("made/store");
        if self.scene != Scene::Fresh {
            std::fs::create_dir_all(&store).expect("it can be made");
            for entry in std::fs::read_dir(self.left.path()).expect("it can be listed") {
                let entry = entry.expect("it can be listed");
                std::fs::copy(entry.path(), store.join(entry.file_name())).expect("it can be copied");
            }
        }
        let mut traced = tracer::trace(child::command("child_process", "work", &store), fault, self.scene.always())?;
        // What the harness of the child says was said before it was looked at.
        let first = traced.lines.iter().position(|line| line == "life 0").unwrap_or(traced.lines.len());
        traced.lines.drain(..first);
        let mut promises = Promises::new(self.scene != Scene::Fresh);
        traced.lines.iter().for_each(|line| promises.hear(line));
        Ok(Run { traced, promises, _directory: directory, store })
    }

    /// A run in which nothing fails: the calls that there are.
    fn calm(&self) -> Result<Vec<Call>, String> {
        let run = self.run(None)?;
        assert_eq!(run.promises.errors, [""; 0], "nothing failed");
        assert!(run.traced.status.success() && run.promises.came_to_its_end, "{:?}", run.traced);
        assert!(run.promises.published() > 40);
        run.promises.check(&run.store);
        let calls = run.traced.calls;
        let known =
            |call: &Call| CALLS.iter().any(|(known, ..)| call.number == *known) || OTHERS.contains(&call.number);
        let unknown: Vec<_> = calls.iter().filter(|call| !known(call)).collect();
        assert!(unknown.is_empty(), "add these to the table: {unknown:?}");
        Ok(calls)
    }

    /// Lets one call fail and checks everything. Whether there was such a call. What is wrong is noted in `wrong`.
    fn fail(&self, fault: Fault, wrong: &mut Vec<String>) -> bool {
        let run = self.run(Some(fault)).expect("it could be traced before");
        let Some(struck) = &run.traced.struck else { return false };
        let shown = format!("{:?}, {} number {}: {:?}", self.scene, name(fault.call), fault.nth, fault.outcome);
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert!(run.traced.status.success(), "the child ended with {}", run.traced.status);
            assert!(run.promises.came_to_its_end, "the child broke off");
            assert_absorbed(fault, &run.promises);
            assert_fail_stop(fault, struck, &run.traced);
            run.promises.check(&run.store);
        }));
        if checked.is_err() {
            say(&format!("{shown} ({:?})\n{}", struck.call.file, run.traced.lines.join("\n")));
            wrong.push(shown);
        }
        true
    }
}

/// An interruption and a call that came short are nobody's business but the disk layer's.
fn assert_absorbed(fault: Fault, promises: &Promises) {
    if matches!(fault.outcome, Short | Errno(libc::EINTR)) {
        assert_eq!(promises.errors, [""; 0], "it was told of to the caller");
    }
}

/// G13: after a sync that failed nothing durable is promised until the store is opened again, and until then nobody syncs
/// that file again.
fn assert_fail_stop(fault: Fault, struck: &Struck, traced: &Traced) {
    if !is_sync(fault.call) {
        return;
    }
    let file = &struck.call.file;
    let lines = &traced.lines;
    let later = lines.iter().position(|line| line == "life 1").filter(|line| *line >= struck.lines);
    let until = later.unwrap_or(lines.len());
    let after = traced.calls[struck.calls..].iter().skip(1).take_while(|call| call.lines <= until);
    let again = after.filter(|call| is_sync(call.number) && call.file == *file).count();
    assert_eq!(again, 0, "{file:?} was synced again after a failure");
    // An index is derived: nothing that is promised rests on it.
    let is_index = file.as_ref().is_some_and(|file| file.extension().is_some_and(|suffix| suffix == "idx"));
    if !is_index && fault.outcome == Errno(libc::EIO) {
        let promised = lines[struck.lines..until].iter().find(|line| line.starts_with("ok Disk"));
        assert_eq!(promised, None, "G13: a durable Ok after a sync of {file:?} that failed");
    }
}

fn is_sync(call: i64) -> bool {
    matches!(call, libc::SYS_fdatasync | libc::SYS_fsync)
}

/// All scenes, all kinds, all outcomes.
#[test]
fn a_failing_call_breaks_no_promise() {
    let began = Instant::now();
    let share = std::env::var("MILLPOND_SYSCALL_SHARE").map_or(1, |value| value.parse().expect("a number"));
    let (mut failed, mut kinds, mut wrong) = (0, BTreeSet::new(), Vec::new());
    for scene in [Scene::Fresh, Scene::Left, Scene::LeftUnmapped] {
        let rig = Rig::new(scene);
        let calls = match rig.calm() {
            Ok(calls) => tracer::count(&calls),
            Err(why) => return say(&format!("SKIPPED: failing system calls: {why}")),
        };
        for (call, _, outcomes) in CALLS {
            let count = calls.get(call).copied().unwrap_or(0);
            for outcome in *outcomes {
                let mut fail = |nth| rig.fail(Fault { call: *call, nth, outcome: *outcome }, &mut wrong);
                let struck = match share {
                    0 => (0..).take_while(|nth| fail(*nth)).count(),
                    _ => spread(count, share).filter(|nth| fail(*nth)).count(),
                };
                failed += struck as u64;
                if struck > 0 {
                    kinds.insert(*call);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "see above what went wrong: {wrong:#?}");
    assert!(kinds.len() > 20, "only {} kinds of calls failed", kinds.len());
    counts::note("syscalls", began.elapsed(), &[("failing calls", failed), ("kinds of calls", kinds.len() as u64)]);
}

/// `share` of the first `count` numbers, evenly.
fn spread(count: usize, share: usize) -> impl Iterator<Item = usize> {
    let share = share.min(count);
    (0..share).map(move |step| (2 * step + 1) * count / (2 * share))
}

/// Past the harness, which keeps what a passing test prints to itself.
fn say(what: &str) {
    drop(writeln!(std::io::stderr(), "{what}"));
}
