//! What a person chose to see, and what each key makes of that.
//!
//! Never here: drawing it.

use super::rows::TopRow;
use crate::args::SortColumn;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::cmp::Ordering;

/// The columns, in the order in which arrows go through them.
const COLUMNS: [SortColumn; 8] = [
    SortColumn::Topic,
    SortColumn::Group,
    SortColumn::Published,
    SortColumn::Settled,
    SortColumn::Lag,
    SortColumn::Oldest,
    SortColumn::Leased,
    SortColumn::Dead,
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub sort: SortColumn,
    pub is_reversed: bool,
    /// What the topic or the group must have in its name, in small letters.
    pub filter: String,
    /// Whether keys are letters of the filter.
    pub is_typing: bool,
    /// The first row that is seen, if there are so many.
    pub first: usize,
}

/// How much there is to see, and how much of it is seen at once.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub rows: usize,
    pub page: usize,
}

impl Extent {
    /// The furthest that it can be scrolled.
    pub fn last(self) -> usize {
        self.rows.saturating_sub(self.page)
    }
}

impl View {
    pub fn new(sort: SortColumn, filter: &str) -> Self {
        Self { sort, is_reversed: false, filter: filter.to_lowercase(), is_typing: false, first: 0 }
    }

    /// What is seen after a key; `None` ends it.
    pub fn pressed(mut self, key: KeyEvent, extent: Extent) -> Option<Self> {
        let has_ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        // More than was seen before the terminal grew, or before rows went.
        self.first = self.first.min(extent.last());
        match key.code {
            KeyCode::Char('c' | 'd') if has_ctrl => return None,
            KeyCode::Char(_) if has_ctrl => {}
            KeyCode::Up => self.first = self.first.saturating_sub(1),
            KeyCode::Down => self.first += 1,
            KeyCode::PageUp => self.first = self.first.saturating_sub(extent.page),
            KeyCode::PageDown => self.first += extent.page,
            KeyCode::Home => self.first = 0,
            KeyCode::End => self.first = extent.last(),
            KeyCode::Left => self.step(COLUMNS.len() - 1),
            KeyCode::Right => self.step(1),
            KeyCode::Esc => {
                self.filter.clear();
                self.is_typing = false;
            }
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Backspace if self.is_typing => drop(self.filter.pop()),
            KeyCode::Char(char) if self.is_typing => {
                self.filter.extend(char.to_lowercase());
                self.first = 0;
            }
            KeyCode::Char('q') => return None,
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Char('/') => self.is_typing = true,
            _ => {}
        }
        self.first = self.first.min(extent.last());
        Some(self)
    }

    fn step(&mut self, by: usize) {
        let nth = COLUMNS.iter().position(|column| *column == self.sort).unwrap_or_default();
        self.sort = COLUMNS[(nth + by) % COLUMNS.len()];
        self.is_reversed = false;
    }

    /// Those that the filter leaves, in their order.
    pub fn chosen(&self, mut rows: Vec<TopRow>) -> Vec<TopRow> {
        let has = |name: &str| name.to_lowercase().contains(&self.filter);
        rows.retain(|row| has(&row.topic) || has(row.group_name()));
        rows.sort_by(|one, other| {
            let order = self.order(one, other);
            let order = if self.is_reversed { order.reverse() } else { order };
            // Rows that are alike stay where they are from one look to the next.
            order.then_with(|| (&one.topic, &one.group).cmp(&(&other.topic, &other.group)))
        });
        rows
    }

    /// Names from A on, numbers from the highest on.
    fn order(&self, one: &TopRow, other: &TopRow) -> Ordering {
        let rate = |rate: Option<f64>| rate.unwrap_or(-1.0);
        match self.sort {
            SortColumn::Topic => one.topic.cmp(&other.topic).then_with(|| one.group.cmp(&other.group)),
            SortColumn::Group => one.group.cmp(&other.group),
            SortColumn::Published => rate(other.published_per_s).total_cmp(&rate(one.published_per_s)),
            SortColumn::Settled => rate(other.settled_per_s).total_cmp(&rate(one.settled_per_s)),
            SortColumn::Lag => other.lag.cmp(&one.lag),
            SortColumn::Oldest => other.oldest.cmp(&one.oldest),
            SortColumn::Leased => other.leased.cmp(&one.leased),
            SortColumn::Dead => other.dead.cmp(&one.dead),
        }
    }

    /// The order in words.
    pub fn sorting(&self) -> String {
        let (name, is_name) = match self.sort {
            SortColumn::Topic => ("TOPIC", true),
            SortColumn::Group => ("GROUP", true),
            SortColumn::Published => ("IN/S", false),
            SortColumn::Settled => ("OUT/S", false),
            SortColumn::Lag => ("LAG", false),
            SortColumn::Oldest => ("OLDEST", false),
            SortColumn::Leased => ("LEASED", false),
            SortColumn::Dead => ("DEAD", false),
        };
        let first = match (is_name, self.is_reversed) {
            (true, false) => "A first",
            (true, true) => "Z first",
            (false, false) => "highest first",
            (false, true) => "lowest first",
        };
        format!("sorted by {name}, {first}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const EXTENT: Extent = Extent { rows: 100, page: 20 };

    fn start() -> View {
        View::new(SortColumn::Lag, "")
    }

    fn after(view: View, keys: &[KeyCode]) -> Option<View> {
        keys.iter().try_fold(view, |view, code| view.pressed(KeyEvent::from(*code), EXTENT))
    }

    fn row(topic: &str, group: &str, lag: u64, oldest: Option<u64>, settled_per_s: Option<f64>) -> TopRow {
        let (topic, group, oldest) = (topic.to_owned(), Some(group.to_owned()), oldest.map(Duration::from_secs));
        TopRow { topic, group, lag, oldest, settled_per_s, ..TopRow::default() }
    }

    #[test]
    fn keys_scroll_as_far_as_there_are_rows() {
        use KeyCode::{Down, End, Home, PageDown, PageUp, Up};
        let scrolled: [(&[KeyCode], usize); 7] = [
            (&[Up], 0),
            (&[Down, Down, Up], 1),
            (&[PageDown, PageDown, PageUp], 20),
            (&[End], 80),
            (&[End, Down], 80),
            (&[PageDown, Home], 0),
            (&[PageDown, PageDown, PageDown, PageDown, PageDown], 80),
        ];
        for (keys, first) in scrolled {
            assert_eq!(after(start(), keys).map(|view| view.first), Some(first), "{keys:?}");
        }
        // There are fewer rows than before, or a larger page.
        let few = Extent { rows: 30, page: 25 };
        let end = View { first: 80, ..start() };
        assert_eq!(end.pressed(KeyEvent::from(Up), few).map(|view| view.first), Some(4));
        let none = Extent { rows: 0, page: 0 };
        assert_eq!(start().pressed(KeyEvent::from(PageDown), none).map(|view| view.first), Some(0));
    }

    #[test]
    fn arrows_go_round_all_columns() {
        let mut view = View { is_reversed: true, ..start() };
        let mut seen = Vec::new();
        for _ in COLUMNS {
            view = after(view, &[KeyCode::Right]).expect("it goes on");
            assert!(!view.is_reversed && !seen.contains(&view.sort));
            seen.push(view.sort);
        }
        assert_eq!(view.sort, SortColumn::Lag);
        assert_eq!(after(view, &[KeyCode::Left]).map(|view| view.sort), Some(SortColumn::Settled));
        let turned = after(start(), &[KeyCode::Char('r')]).expect("it goes on");
        assert_eq!(
            (start().sorting(), turned.sorting()),
            ("sorted by LAG, highest first".to_owned(), "sorted by LAG, lowest first".to_owned())
        );
    }

    #[test]
    fn a_filter_takes_letters_until_enter() {
        use KeyCode::{Backspace, Char, Enter, Esc};
        let typed = after(start(), &[Char('/'), Char('Q'), Char('r'), Char('x'), Backspace]).expect("it goes on");
        assert_eq!((typed.filter.as_str(), typed.is_typing, typed.is_reversed), ("qr", true, false));
        let done = after(typed.clone(), &[Enter]).expect("it goes on");
        assert_eq!((done.filter.as_str(), done.is_typing), ("qr", false));
        assert_eq!(after(done.clone(), &[Backspace]).expect("it goes on").filter, "qr", "no letter any more");
        assert_eq!(after(done.clone(), &[Esc]), Some(start()));
        assert_eq!(after(typed.clone(), &[Esc]), Some(start()));
        assert_eq!(after(done, &[Char('q')]), None);
        let ctrl_c = KeyEvent::new(Char('c'), KeyModifiers::CONTROL);
        assert_eq!((typed.pressed(ctrl_c, EXTENT), start().pressed(ctrl_c, EXTENT)), (None, None));
        assert_eq!(start().pressed(KeyEvent::new(Char('q'), KeyModifiers::CONTROL), EXTENT), Some(start()));
    }

    #[test]
    fn rows_are_filtered_and_sorted() {
        let rows = vec![
            row("orders", "kitchen", 5, None, Some(1.0)),
            row("Mails", "sender", 70, Some(3), None),
            row("orders", "bar", 5, Some(9), Some(2.0)),
        ];
        let order = |view: &View| -> Vec<String> {
            view.chosen(rows.clone()).iter().map(|row| row.group_name().to_owned()).collect()
        };
        let by = |sort| View { sort, ..start() };
        assert_eq!(order(&by(SortColumn::Lag)), ["sender", "bar", "kitchen"]);
        // What is alike keeps its order.
        assert_eq!(order(&View { is_reversed: true, ..by(SortColumn::Lag) }), ["bar", "kitchen", "sender"]);
        assert_eq!(order(&by(SortColumn::Oldest)), ["bar", "sender", "kitchen"]);
        assert_eq!(order(&by(SortColumn::Settled)), ["bar", "kitchen", "sender"]);
        assert_eq!(order(&by(SortColumn::Topic)), ["sender", "bar", "kitchen"]);
        assert_eq!(order(&by(SortColumn::Group)), ["bar", "kitchen", "sender"]);
        assert_eq!(order(&View::new(SortColumn::Lag, "MAIL")), ["sender"]);
        assert_eq!(order(&View::new(SortColumn::Lag, "ki")), ["kitchen"]);
        assert!(order(&View::new(SortColumn::Lag, "nothing")).is_empty());
    }
}
