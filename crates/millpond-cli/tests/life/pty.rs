//! A process on a terminal, and what that shows.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "a process that shows something else for ever must not hang its test")]
#![allow(dead_code, reason = "not every test needs all of it")]

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::num::NonZero;
use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const WAIT_MAX: Duration = Duration::from_secs(120);

pub struct Pty {
    master: File,
    terminal: vt100::Parser,
    child: Child,
    first_modes: String,
}

impl Pty {
    /// Runs it with the terminal as its input, output and errors.
    pub fn run(mut command: Command, (width, height): (u16, u16)) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        tcsetwinsize(&slave, Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let first_modes = modes(&master);
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        let child = command.spawn().unwrap();
        // With the command its ends are closed here, so that the last one is that of the process.
        drop(command);
        let terminal = vt100::Parser::new(NonZero::new(height).unwrap(), NonZero::new(width).unwrap(), 0);
        Self { master: File::from(master), terminal, child, first_modes }
    }

    pub fn screen(&self) -> &vt100::Screen {
        self.terminal.screen()
    }

    /// Whether keys are gathered, echoed and made signals of as they were before the process.
    pub fn has_first_modes(&self) -> bool {
        modes(&self.master) == self.first_modes
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// The lines of the screen, without what is blank at their ends.
    pub fn lines(&self) -> Vec<String> {
        let width = self.screen().size().1.get();
        self.screen().rows(0, width).map(|line| line.trim_end().to_owned()).collect()
    }

    /// Until the screen has a line with this end.
    #[track_caller]
    pub fn wait_for(&mut self, end: &str) {
        let since = Instant::now();
        while !self.lines().iter().any(|line| line.ends_with(end)) {
            assert!(self.read() && since.elapsed() < WAIT_MAX, "no {end:?} in {:#?}", self.lines());
        }
    }

    /// The terminal goes away under the process, which gets no signal of that.
    pub fn hang_up(self) -> Child {
        self.child
    }

    /// Until no process has the terminal.
    pub fn read_to_end(&mut self) {
        while self.read() {}
    }

    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match self.master.read(&mut bytes) {
            Ok(0) => false,
            Ok(len) => {
                self.terminal.process(&bytes[..len]);
                true
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            // No process has the other end.
            Err(_) => false,
        }
    }
}

fn modes(terminal: &impl AsFd) -> String {
    let modes = tcgetattr(terminal).unwrap();
    format!("{:?} {:?} {:?}", modes.local_modes, modes.input_modes, modes.output_modes)
}
