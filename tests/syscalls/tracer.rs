//! Watching a process from the kernel's side, and letting one of its system calls fail: ptrace, on x86_64 Linux.
//!
//! Only the thread that says so is looked at, from [`begin`] to [`end`]. A call that is to fail is not made: at its entry its number is
//! replaced by one that does not exist, and at its exit the result by the error. A call that is to come short is made,
//! with half its length.

#![allow(unsafe_code, reason = "ptrace has no safe form")]

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

/// An argument of `prctl` that means nothing to the kernel.
const MARK: libc::c_int = 0x6d69_6c6c;

/// In the child: from here on this thread is looked at.
pub(crate) fn begin() {
    mark(1);
}

/// In the child: this is the end of what is looked at.
pub(crate) fn end() {
    mark(0);
}

fn mark(what: libc::c_ulong) {
    // SAFETY: an operation that the kernel does not know changes nothing.
    unsafe { libc::prctl(MARK, what) };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Errno(i32),
    /// Half of what was asked for.
    Short,
}

/// What the nth call of a kind meets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) call: i64,
    /// From 0.
    pub(crate) nth: usize,
    pub(crate) outcome: Outcome,
}

/// A call that was made, or not.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) number: i64,
    /// Its first argument, where that is a descriptor the file behind it.
    pub(crate) file: Option<PathBuf>,
    #[expect(dead_code, reason = "shown where a call is not in the table")]
    pub(crate) result: i64,
    /// How many lines had been written before it.
    pub(crate) lines: usize,
}

/// Where a fault struck.
#[derive(Clone, Debug)]
pub(crate) struct Struck {
    pub(crate) call: Call,
    /// Lines and calls before it.
    pub(crate) lines: usize,
    pub(crate) calls: usize,
}

#[derive(Debug)]
pub(crate) struct Traced {
    /// Lines of the child.
    pub(crate) lines: Vec<String>,
    pub(crate) calls: Vec<Call>,
    pub(crate) struck: Option<Struck>,
    pub(crate) status: ExitStatus,
}

/// What the tracer knows of a thread inside a call.
#[derive(Clone, Copy)]
struct Entered {
    number: i64,
    strike: Option<Outcome>,
    /// The length that was halved, where it lies in memory.
    whole: Option<u64>,
    before: libc::user_regs_struct,
}

struct Tracer<'a> {
    fault: Option<Fault>,
    /// Calls that fail each time.
    always: &'a [(i64, i32)],
    main: libc::pid_t,
    tracked: Option<libc::pid_t>,
    inside: HashMap<libc::pid_t, Entered>,
    counts: BTreeMap<i64, usize>,
    calls: Vec<Call>,
    lines: usize,
    struck: Option<Struck>,
}

/// Runs the command to its end under the fault, or says why this machine cannot do that.
pub(crate) fn trace(mut command: Command, fault: Option<Fault>, always: &[(i64, i32)]) -> Result<Traced, String> {
    let traceme = || {
        // SAFETY: asks to be traced by the parent; takes no memory.
        match unsafe { libc::ptrace(libc::PTRACE_TRACEME) } {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    command.stdout(Stdio::piped());
    // SAFETY: the hook makes one system call and takes no lock.
    unsafe { command.pre_exec(traceme) };
    let mut child = command.spawn().map_err(|error| format!("a child cannot be traced: {error}"))?;
    let mut tracer = Tracer {
        fault,
        always,
        main: i32::try_from(child.id()).expect("a process id"),
        tracked: None,
        inside: HashMap::new(),
        counts: BTreeMap::new(),
        calls: Vec::new(),
        lines: 0,
        struck: None,
    };
    let ran = tracer.run();
    if ran.is_err() {
        // It stands still, and nobody else would let it go on.
        drop(child.kill());
        drop(child.wait());
    }
    let status = ran?;
    let mut said = String::new();
    child.stdout.take().expect("it was piped").read_to_string(&mut said).expect("text");
    let lines = said.lines().map(str::to_owned).collect();
    Ok(Traced { lines, calls: tracer.calls, struck: tracer.struck, status })
}

/// How many calls of each number there are.
pub(crate) fn count(calls: &[Call]) -> BTreeMap<i64, usize> {
    let mut counts = BTreeMap::new();
    calls.iter().for_each(|call| *counts.entry(call.number).or_default() += 1);
    counts
}

impl Tracer<'_> {
    fn run(&mut self) -> Result<ExitStatus, String> {
        let (stopped, status) = wait(self.main);
        // A process that asked to be traced stops when it executes its program.
        if stopped != self.main || !libc::WIFSTOPPED(status) {
            return Err(format!("the child did not stop: {status:x}"));
        }
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
        request(libc::PTRACE_SETOPTIONS, self.main, options as usize)?;
        request(libc::PTRACE_SYSCALL, self.main, 0)?;
        loop {
            let (pid, status) = wait(-1);
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                if pid == self.main {
                    return Ok(ExitStatus::from_raw(status));
                }
                continue;
            }
            let signal = match libc::WSTOPSIG(status) {
                signal if signal == libc::SIGTRAP | 0x80 => {
                    self.at_call(pid)?;
                    0
                }
                // A new thread, and the news of it.
                libc::SIGTRAP | libc::SIGSTOP => 0,
                signal => signal,
            };
            // A thread may have been killed since: then there is nothing to go on with.
            drop(request(libc::PTRACE_SYSCALL, pid, signal as usize));
        }
    }

    /// A thread is at the entry or at the exit of a call.
    fn at_call(&mut self, pid: libc::pid_t) -> Result<(), String> {
        let registers = get_registers(pid)?;
        match self.inside.remove(&pid) {
            None => {
                let entered = self.enter(pid, registers)?;
                self.inside.insert(pid, entered);
                Ok(())
            }
            Some(entered) => self.leave(pid, entered, registers),
        }
    }

    fn enter(&mut self, pid: libc::pid_t, registers: libc::user_regs_struct) -> Result<Entered, String> {
        let number = registers.orig_rax as i64;
        let mut entered = Entered { number, strike: None, whole: None, before: registers };
        if number == libc::SYS_prctl && registers.rdi == MARK as u64 {
            self.tracked = (registers.rsi == 1).then_some(pid);
        } else if self.tracked == Some(pid) && !is_memory(&registers) {
            let nth = self.counts.entry(number).or_default();
            let struck = self.fault.filter(|fault| (fault.call, fault.nth) == (number, *nth));
            let always = self.always.iter().find(|(call, _)| *call == number);
            *nth += 1;
            entered.strike = struck.map(|fault| fault.outcome).or(always.map(|(_, errno)| Outcome::Errno(*errno)));
            match entered.strike {
                Some(Outcome::Errno(_)) => {
                    set_registers(pid, &libc::user_regs_struct { orig_rax: u64::MAX, ..registers })?;
                }
                Some(Outcome::Short) if number == libc::SYS_pwritev => {
                    let len = iovec_len(pid, &registers)?;
                    set_iovec_len(pid, &registers, len.div_ceil(2))?;
                    // Of several pieces half of the first is written.
                    set_registers(pid, &libc::user_regs_struct { rdx: 1, ..registers })?;
                    entered.whole = Some(len);
                }
                Some(Outcome::Short) => {
                    set_registers(pid, &libc::user_regs_struct { rdx: registers.rdx.div_ceil(2), ..registers })?;
                }
                None => {}
            }
            if struck.is_some() {
                let call = Call { number, file: file_of(pid, &registers), result: 0, lines: self.lines };
                self.struck = Some(Struck { call, lines: self.lines, calls: self.calls.len() });
            }
        }
        Ok(entered)
    }

    fn leave(&mut self, pid: libc::pid_t, entered: Entered, after: libc::user_regs_struct) -> Result<(), String> {
        let Entered { number, strike, whole, before } = entered;
        let result = match strike {
            Some(Outcome::Errno(errno)) => i64::from(-errno) as u64,
            _ => after.rax,
        };
        if strike.is_some() {
            // The arguments' registers belong to the caller.
            let restored = libc::user_regs_struct { rax: result, rdx: before.rdx, ..after };
            set_registers(pid, &restored)?;
        }
        if let Some(whole) = whole {
            set_iovec_len(pid, &before, whole)?;
        }
        if self.tracked == Some(pid) && number != libc::SYS_prctl && !is_memory(&before) {
            self.lines += usize::from(number == libc::SYS_write);
            let lines = self.lines;
            self.calls.push(Call { number, file: file_of(pid, &before), result: result as i64, lines });
        }
        Ok(())
    }
}

/// A map of no file: the allocator's.
fn is_memory(registers: &libc::user_regs_struct) -> bool {
    registers.orig_rax as i64 == libc::SYS_mmap && (registers.r8 as i32) < 0
}

/// The file behind the descriptor that most calls have as their first argument.
fn file_of(pid: libc::pid_t, registers: &libc::user_regs_struct) -> Option<PathBuf> {
    let number = registers.orig_rax as i64;
    let descriptor = if number == libc::SYS_mmap { registers.r8 } else { registers.rdi } as i32;
    std::fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).ok()
}

fn wait(pid: libc::pid_t) -> (libc::pid_t, libc::c_int) {
    let mut status = 0;
    // Children of this thread alone: other tests have children of their own.
    let flags = libc::__WALL | libc::__WNOTHREAD;
    loop {
        // SAFETY: `status` outlives the call.
        let found = unsafe { libc::waitpid(pid, &raw mut status, flags) };
        if found > 0 {
            return (found, status);
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "the traced child is gone: {error}");
    }
}

fn request(what: libc::c_uint, pid: libc::pid_t, data: usize) -> Result<(), String> {
    // SAFETY: requests that take a number and no memory of this process.
    match unsafe { libc::ptrace(what, pid, 0usize, data) } {
        -1 => Err(format!("ptrace {what}: {}", std::io::Error::last_os_error())),
        _ => Ok(()),
    }
}

fn get_registers(pid: libc::pid_t) -> Result<libc::user_regs_struct, String> {
    let mut registers = std::mem::MaybeUninit::<libc::user_regs_struct>::zeroed();
    // SAFETY: the kernel fills one such structure.
    let done = unsafe { libc::ptrace(libc::PTRACE_GETREGS, pid, 0usize, registers.as_mut_ptr()) };
    if done == -1 {
        return Err(format!("registers cannot be read: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: zeros are a value of it, and the kernel wrote all of it.
    Ok(unsafe { registers.assume_init() })
}

fn set_registers(pid: libc::pid_t, registers: &libc::user_regs_struct) -> Result<(), String> {
    // SAFETY: the kernel reads one such structure.
    let done = unsafe { libc::ptrace(libc::PTRACE_SETREGS, pid, 0usize, std::ptr::from_ref(registers)) };
    if done == -1 { Err(format!("registers cannot be set: {}", std::io::Error::last_os_error())) } else { Ok(()) }
}

/// Where the first `iovec` of a `pwritev` has its length.
fn iovec_len_at(registers: &libc::user_regs_struct) -> usize {
    registers.rsi as usize + std::mem::offset_of!(libc::iovec, iov_len)
}

fn iovec_len(pid: libc::pid_t, registers: &libc::user_regs_struct) -> Result<u64, String> {
    // SAFETY: reads a word of the other process; takes no memory of this one.
    let word = unsafe { libc::ptrace(libc::PTRACE_PEEKDATA, pid, iovec_len_at(registers), 0usize) };
    if word < 0 { Err("a length cannot be read".to_owned()) } else { Ok(word as u64) }
}

fn set_iovec_len(pid: libc::pid_t, registers: &libc::user_regs_struct, len: u64) -> Result<(), String> {
    // SAFETY: writes a word of the other process, which is stopped.
    match unsafe { libc::ptrace(libc::PTRACE_POKEDATA, pid, iovec_len_at(registers), len as usize) } {
        -1 => Err("a length cannot be set".to_owned()),
        _ => Ok(()),
    }
}
