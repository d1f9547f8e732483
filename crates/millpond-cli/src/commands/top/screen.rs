//! The terminal while it shows a live view.
//!
//! However that ends, the terminal is as it was. Never here: what is shown.

use super::draw::LineStyle;
use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use crossterm::{execute, queue};
use std::io::{self, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the terminal is to be put back: once, for a second time would move the cursor over what was printed since.
static IS_LIVE: AtomicBool = AtomicBool::new(false);
static PANIC_HOOK: Once = Once::new();

/// The terminal on its other screen, without a cursor, giving each key at once. Dropping it puts the terminal back; so does a panic, before
/// its message is printed.
pub struct LiveScreen<W: Write> {
    to: W,
}

impl<W: Write> LiveScreen<W> {
    pub fn enter(to: W) -> io::Result<Self> {
        PANIC_HOOK.call_once(|| {
            let others = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                put_back(&mut io::stdout());
                others(panic);
            }));
        });
        enable_raw_mode()?;
        IS_LIVE.store(true, Ordering::Relaxed);
        let mut screen = Self { to };
        execute!(screen.to, EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    pub fn draw(&mut self, lines: &[(LineStyle, String)]) -> io::Result<()> {
        let mut bytes = Vec::new();
        put(&mut bytes, lines)?;
        self.to.write_all(&bytes)?;
        self.to.flush()
    }
}

impl<W: Write> Drop for LiveScreen<W> {
    fn drop(&mut self) {
        put_back(&mut self.to);
    }
}

/// Where that fails the terminal is gone.
fn put_back(to: &mut impl Write) {
    if IS_LIVE.swap(false, Ordering::Relaxed) {
        let _ = execute!(to, Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// Each line in its place. They are as wide as the terminal, so that nothing need be cleared, which would flicker.
pub fn put(to: &mut impl Write, lines: &[(LineStyle, String)]) -> io::Result<()> {
    for (nth, (style, text)) in (0..).zip(lines) {
        let attribute = match style {
            LineStyle::Plain => Attribute::Reset,
            LineStyle::Strong => Attribute::Bold,
            LineStyle::Header => Attribute::Reverse,
        };
        queue!(to, MoveTo(0, nth), SetAttribute(attribute), Print(text), SetAttribute(Attribute::Reset))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pty::Pty;
    use std::process::Command;

    /// Set in the process that panics.
    const PANICS: &str = "MILLPOND_TEST_PANICS";

    /// Runs in a process of its own, below.
    #[test]
    fn panicking_process() {
        if std::env::var_os(PANICS).is_some() {
            let _screen = LiveScreen::enter(io::stdout()).expect("it is a terminal");
            panic!("no oven");
        }
    }

    #[test]
    fn panic_leaves_the_terminal_as_it_was_and_is_readable() {
        let test = std::env::current_exe().expect("it runs");
        let mut process = Command::new(test);
        process
            .args(["--exact", "commands::top::screen::tests::panicking_process", "--nocapture"])
            .env(PANICS, "1")
            .env("RUST_BACKTRACE", "0");
        let mut terminal = Pty::run(process, (80, 24));
        terminal.read_to_end();
        assert_eq!(terminal.exit_code(), Some(101));
        let screen = terminal.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor());
        assert!(screen.contents().contains("no oven"), "{}", screen.contents());
        assert!(terminal.has_first_modes());
    }
}
