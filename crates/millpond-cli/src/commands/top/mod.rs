//! What the groups of a store do, as it goes on.
//!
//! `rows` makes the numbers, `view` what a person chose to see of them, `draw` lines of text, `screen` puts those on a terminal. Never here: a
//! change; it observes the store.

#![allow(clippy::disallowed_methods, reason = "a person looks here, by no simulated clock")]

mod draw;
mod rows;
mod screen;
mod view;

use super::tail::interrupted;
use crate::args::Top;
use crate::output::{Done, Failure, Printer};
use crate::text::millis;
use crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use draw::{Frame, lines, page};
use millpond::{Observer, Stats};
use rows::{HEADER, TopRow, rows};
use screen::LiveScreen;
use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant, SystemTime};
use view::{Extent, View};

/// How long one wait takes, after which an interrupt is seen.
const STEP: Duration = Duration::from_millis(50);
/// Over how many intervals rates are taken: what is durable moves in steps of about a second.
const RATE_INTERVALS: usize = 5;
/// The size of a terminal that does not say it.
const SIZE: (u16, u16) = (80, 24);

pub fn top(observer: &Observer, path: &Path, args: &Top, printer: &mut Printer) -> Done {
    let stop = interrupted()?;
    if printer.is_json() {
        return follow(observer, args, &stop, |rows| {
            let time = millis(SystemTime::now());
            rows.iter().try_for_each(|row| printer.show(|| row.as_json(time), String::new))?;
            printer.flush()
        });
    }
    if args.once || !io::stdout().is_terminal() {
        let once = Top { once: true, filter: args.filter.clone(), ..*args };
        return follow(observer, &once, &stop, |rows| {
            printer.table(HEADER, rows.iter().map(|row| (row.cells(), serde_json::Value::Null)).collect())
        });
    }
    live(observer, path, args, &stop)
}

/// What was seen within the time over which rates are taken.
struct Samples {
    kept: VecDeque<(Instant, Stats)>,
}

impl Samples {
    fn new(first: Stats) -> Self {
        Self { kept: VecDeque::from([(Instant::now(), first)]) }
    }

    fn add(&mut self, stats: Stats) {
        if self.kept.len() > RATE_INTERVALS {
            self.kept.pop_front();
        }
        self.kept.push_back((Instant::now(), stats));
    }

    fn rows(&self) -> Vec<TopRow> {
        let (Some((first_at, first)), Some((last_at, last))) = (self.kept.front(), self.kept.back()) else {
            return Vec::new();
        };
        rows((first, *last_at - *first_at), last)
    }
}

/// Gives the rows after each interval, until it is interrupted.
fn follow(observer: &Observer, args: &Top, stop: &AtomicBool, mut give: impl FnMut(&[TopRow]) -> Done) -> Done {
    let (view, mut samples) = (View::new(args.sort, &args.filter), Samples::new(observer.stats()?));
    loop {
        let until = Instant::now() + args.interval;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            std::thread::sleep(left.min(STEP));
        }
        observer.refresh()?;
        samples.add(observer.stats()?);
        give(&view.chosen(samples.rows()))?;
        if args.once {
            return Ok(());
        }
    }
}

/// Shows the rows on the terminal, and does what keys ask for.
fn live(observer: &Observer, path: &Path, args: &Top, stop: &AtomicBool) -> Done {
    let failed = |error| Failure::Io("could not use the terminal".to_owned(), error);
    let path = path.display().to_string();
    let mut samples = Samples::new(observer.stats()?);
    let (mut view, mut next, mut trouble) = (View::new(args.sort, &args.filter), Instant::now() + args.interval, None);
    let mut screen = LiveScreen::enter(io::stdout()).map_err(failed)?;
    let keys = keys();
    while !stop.load(Ordering::Relaxed) {
        if next <= Instant::now() {
            // What is known is shown on, and the next look tries again.
            trouble = observer.refresh().err().map(|error| error.to_string());
            samples.add(observer.stats()?);
            next = Instant::now() + args.interval;
        }
        let rows = samples.rows();
        let all = rows.len();
        let (chosen, size) = (view.chosen(rows), size());
        let extent = Extent { rows: chosen.len(), page: page(size) };
        let stats = samples.kept.back().map(|(_, stats)| stats);
        let frame =
            Frame { path: &path, log: stats.map(|stats| stats.log), rows: &chosen, all, trouble: trouble.as_deref() };
        screen.draw(&lines(&frame, &view, size)).map_err(failed)?;
        let left = next.saturating_duration_since(Instant::now());
        match keys.recv_timeout(left.min(STEP)) {
            Ok(Ok(key)) => match view.pressed(key, extent) {
                Some(after) => view = after,
                None => break,
            },
            Ok(Err(error)) => return Err(failed(error)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
    Ok(())
}

/// The keys that are pressed, read by a thread of their own: where the terminal is gone crossterm reads its end for ever, and the process
/// ends without it, for what is drawn then fails.
fn keys() -> Receiver<io::Result<KeyEvent>> {
    let (give, keys) = sync_channel(16);
    std::thread::spawn(move || {
        loop {
            let key = match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => Ok(key),
                Ok(_) => continue,
                Err(error) => Err(error),
            };
            let is_last = key.is_err();
            if give.send(key).is_err() || is_last {
                break;
            }
        }
    });
    keys
}

fn size() -> (u16, u16) {
    let size = terminal_size::terminal_size_of(io::stdout());
    size.map_or(SIZE, |(terminal_size::Width(width), terminal_size::Height(height))| (width, height))
}
