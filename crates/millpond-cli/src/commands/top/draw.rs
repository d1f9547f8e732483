//! A live view as lines of text.
//!
//! Never here: a terminal.

use super::rows::{TopRow, count, per_second};
use super::view::{Extent, View};
use crate::text::{age, plain};
use millpond::LogStats;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The lines around the rows: title, totals, order, header, keys.
const LINES_AROUND: usize = 5;
/// From here on there is room for what is ready and waiting, and for more air.
const WIDE: usize = 120;
/// What a column of names has at least.
const NAME_MIN: usize = 4;

/// What there is to draw.
pub struct Frame<'a> {
    pub path: &'a str,
    pub log: Option<LogStats>,
    /// Those that were chosen, in their order.
    pub rows: &'a [TopRow],
    /// How many there were to choose from.
    pub all: usize,
    /// Why the last look failed.
    pub trouble: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineStyle {
    Plain,
    /// What needs somebody.
    Strong,
    Header,
}

/// A column of numbers.
struct Column {
    title: &'static str,
    width: usize,
    is_wide_only: bool,
    text: fn(&TopRow, usize) -> String,
}

const fn column(title: &'static str, width: usize, text: fn(&TopRow, usize) -> String) -> Column {
    Column { title, width, is_wide_only: false, text }
}

const COLUMNS: [Column; 9] = [
    column("IN/S", 6, |row, _| per_second(row.published_per_s)),
    column("OUT/S", 6, |row, _| per_second(row.settled_per_s)),
    column("LAG", 8, |row, width| count(row.lag, width)),
    Column { is_wide_only: true, ..column("READY", 8, |row, width| count(row.ready, width)) },
    Column { is_wide_only: true, ..column("WAITING", 8, |row, width| count(row.waiting, width)) },
    column("OLDEST", 6, |row, _| age(row.oldest)),
    column("LEASED", 6, |row, width| count(row.leased, width)),
    column("DEAD", 6, |row, width| count(row.dead, width)),
    column("", 6, |row, _| row.state().to_owned()),
];

/// How many rows are seen at once.
pub fn page((_, height): (u16, u16)) -> usize {
    usize::from(height).saturating_sub(LINES_AROUND)
}

/// As many lines as the terminal has, each as wide as it is.
pub fn lines(frame: &Frame<'_>, view: &View, size: (u16, u16)) -> Vec<(LineStyle, String)> {
    let (width, height) = (usize::from(size.0), usize::from(size.1));
    let extent = Extent { rows: frame.rows.len(), page: page(size) };
    let first = view.first.min(extent.last());
    let shown = &frame.rows[first..(first + extent.page).min(frame.rows.len())];
    let names = names(frame.rows, width);
    let mut lines = vec![
        (LineStyle::Strong, format!("millpond top  {}", frame.path)),
        (LineStyle::Plain, totals(frame)),
        match frame.trouble {
            Some(trouble) => (LineStyle::Strong, format!("as of before: {trouble}")),
            None => (LineStyle::Plain, order(frame, view, (first, shown.len()))),
        },
        (LineStyle::Header, line(("TOPIC", "GROUP"), names, width, |column| column.title.to_owned())),
    ];
    lines.extend(shown.iter().map(|row| {
        let style = if row.dead > 0 { LineStyle::Strong } else { LineStyle::Plain };
        (style, line((&row.topic, row.group_name()), names, width, |column| (column.text)(row, column.width)))
    }));
    lines.resize(height.saturating_sub(1).max(LINES_AROUND - 1), (LineStyle::Plain, String::new()));
    let keys = if view.is_typing { "Enter keeps the filter, Esc clears it" } else { KEYS };
    lines.push((LineStyle::Plain, keys.to_owned()));
    lines.truncate(height);
    lines.into_iter().map(|(style, text)| (style, fit(&text, width))).collect()
}

const KEYS: &str = "q quit   up/down scroll   left/right sort by   r reverse   / filter";

fn totals(frame: &Frame<'_>) -> String {
    let sum = |number: fn(&TopRow) -> u64| frame.rows.iter().map(number).fold(0, u64::saturating_add);
    let groups = frame.rows.iter().filter(|row| row.group.is_some()).count();
    let log = frame.log.map(|log| format!("; log: {} KiB in {} segments", log.bytes.div_ceil(1024), log.segments));
    format!("{groups} groups, lag {}, dead {}{}", sum(|row| row.lag), sum(|row| row.dead), log.unwrap_or_default())
}

fn order(frame: &Frame<'_>, view: &View, (first, shown): (usize, usize)) -> String {
    let seen = match (shown, frame.rows.len()) {
        (0, 0) if frame.all > 0 => format!("none of {} rows", frame.all),
        (0, 0) => "no topics".to_owned(),
        (shown, rows) => format!("rows {} to {} of {rows}", first + 1, first + shown),
    };
    let filter = match (view.is_typing, view.filter.as_str()) {
        (true, filter) => format!(", filter: {filter}_"),
        (false, "") => String::new(),
        (false, filter) => format!(", filter: {filter}"),
    };
    format!("{seen}, {}{filter}", view.sorting())
}

/// How wide the names of topics and of groups are: as they need it, or half of the room each at most, and what the other leaves.
fn names(rows: &[TopRow], width: usize) -> (usize, usize) {
    let numbers: usize = columns(width).map(|column| column.width + gap(width)).sum();
    let room = width.saturating_sub(numbers + gap(width)).max(2 * NAME_MIN);
    let longest = |name: fn(&TopRow) -> &str| rows.iter().map(|row| plain(name(row)).width()).max();
    let topic = longest(|row| &row.topic).unwrap_or_default().max("TOPIC".len());
    let group = longest(|row| row.group_name()).unwrap_or_default().max("GROUP".len());
    let topic = topic.min((room / 2).max(room.saturating_sub(group)));
    (topic, group.min(room - topic))
}

fn columns(width: usize) -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().filter(move |column| width >= WIDE || !column.is_wide_only)
}

fn gap(width: usize) -> usize {
    if width >= WIDE { 2 } else { 1 }
}

fn line(
    (topic, group): (&str, &str),
    (topic_width, group_width): (usize, usize),
    width: usize,
    text: impl Fn(&Column) -> String,
) -> String {
    let gap = " ".repeat(gap(width));
    let mut line = format!("{}{gap}{}", fit(topic, topic_width), fit(group, group_width));
    for column in columns(width) {
        line.push_str(&format!("{gap}{:>1$}", text(column), column.width));
    }
    line
}

/// The text in exactly so many columns of a terminal.
fn fit(text: &str, width: usize) -> String {
    let text = plain(text);
    if text.width() <= width {
        return format!("{text}{}", " ".repeat(width - text.width()));
    }
    let (mut cut, mut left) = (String::new(), width.saturating_sub(1));
    for char in text.chars() {
        let char_width = char.width().unwrap_or_default();
        if char_width > left {
            break;
        }
        left -= char_width;
        cut.push(char);
    }
    if width > 0 {
        cut.push('…');
    }
    cut.push_str(&" ".repeat(left));
    cut
}

#[cfg(test)]
mod tests {
    use super::super::screen::put;
    use super::*;
    use crate::args::SortColumn;
    use std::num::NonZero;
    use std::time::Duration;

    fn row(
        topic: &str,
        group: Option<&str>,
        numbers: [u64; 5],
        rates: [Option<f64>; 2],
        oldest: Option<u64>,
    ) -> TopRow {
        let [lag, ready, leased, waiting, dead] = numbers;
        let [published_per_s, settled_per_s] = rates;
        let (topic, group, oldest) = (topic.to_owned(), group.map(str::to_owned), oldest.map(Duration::from_secs));
        TopRow {
            topic,
            group,
            published_per_s,
            settled_per_s,
            lag,
            ready,
            leased,
            waiting,
            dead,
            oldest,
            ..TopRow::default()
        }
    }

    fn some_rows() -> Vec<TopRow> {
        let rates = [Some(1_250.0), Some(0.4)];
        let mut rows = vec![
            row("orders", Some("kitchen"), [1_234_567, 1_234_000, 64, 3, 12], rates, Some(7_300)),
            row(
                "a-topic-with-a-very-long-name-that-never-ends",
                Some("invoices\x1b[31m"),
                [3, 2, 1, 0, 0],
                rates,
                Some(4),
            ),
            row("訂單", Some("厨房"), [0; 5], [None, None], None),
            row("audit", None, [0; 5], [Some(25.4), None], None),
        ];
        rows[1].paused = true;
        rows[2].at_cap = true;
        rows
    }

    /// What a terminal shows.
    fn shown(rows: &[TopRow], view: &View, size: (u16, u16)) -> Vec<String> {
        let mut log = LogStats::default();
        (log.bytes, log.segments) = (123_456, 2);
        let frame = Frame { path: "/var/lib/shop", log: Some(log), rows, all: 4, trouble: None };
        let mut bytes = Vec::new();
        put(&mut bytes, &lines(&frame, view, size)).expect("a vector takes it");
        let some = |length| NonZero::new(length).expect("a terminal has a size");
        let mut terminal = vt100::Parser::new(some(size.1), some(size.0), 0);
        terminal.process(&bytes);
        terminal.screen().rows(0, size.0).map(|line| line.trim_end().to_owned()).collect()
    }

    fn view() -> View {
        View::new(SortColumn::Lag, "")
    }

    #[test]
    fn it_fits_80_columns() {
        let expected = r"
millpond top  /var/lib/shop
3 groups, lag 1234570, dead 12; log: 121 KiB in 2 segments
rows 1 to 4 of 4, sorted by LAG, highest first
TOPIC          GROUP            IN/S  OUT/S      LAG OLDEST LEASED   DEAD
orders         kitchen          1250    0.4  1234567     2h     64     12
a-topic-with-… invoices\u{1b…   1250    0.4        3     4s      1      0 paused
訂單           厨房                -      -        0      -      0      0 at cap
audit          -                  25      -        0      -      0      0



q quit   up/down scroll   left/right sort by   r reverse   / filter";
        assert_eq!(shown(&some_rows(), &view(), (80, 12)).join("\n"), expected.trim_start());
    }

    #[test]
    fn it_fits_200_columns() {
        let expected = r"
millpond top  /var/lib/shop
3 groups, lag 1234570, dead 12; log: 121 KiB in 2 segments
rows 1 to 4 of 4, sorted by LAG, highest first
TOPIC                                          GROUP                 IN/S   OUT/S       LAG     READY   WAITING  OLDEST  LEASED    DEAD
orders                                         kitchen               1250     0.4   1234567   1234000         3      2h      64      12
a-topic-with-a-very-long-name-that-never-ends  invoices\u{1b}[31m    1250     0.4         3         2         0      4s       1       0  paused
訂單                                           厨房                     -       -         0         0         0       -       0       0  at cap
audit                                          -                       25       -         0         0         0       -       0       0

q quit   up/down scroll   left/right sort by   r reverse   / filter";
        assert_eq!(shown(&some_rows(), &view(), (200, 10)).join("\n"), expected.trim_start());
    }

    #[test]
    fn it_scrolls_and_names_what_is_seen() {
        let rows: Vec<TopRow> =
            (0..50).map(|nth| row("orders", Some(&format!("group-{nth}")), [nth; 5], [None; 2], None)).collect();
        let view = View { first: 47, filter: "group".to_owned(), is_typing: true, ..view() };
        let lines = shown(&rows, &view, (80, 15));
        assert_eq!(lines[2], "rows 41 to 50 of 50, sorted by LAG, highest first, filter: group_");
        assert!(lines[4].starts_with("orders group-40 ") && lines[13].starts_with("orders group-49 "), "{lines:?}");
        assert_eq!(lines[14], "Enter keeps the filter, Esc clears it");
        assert!(shown(&[], &view, (80, 15))[2].starts_with("none of 4 rows, "));
    }

    #[test]
    fn trouble_is_shown_and_rows_stay() {
        let rows = some_rows();
        let frame = Frame { path: "p", log: None, rows: &rows, all: 4, trouble: Some("the disk is gone") };
        let lines = lines(&frame, &view(), (80, 10));
        assert_eq!((lines[2].0, lines[2].1.trim_end()), (LineStyle::Strong, "as of before: the disk is gone"));
        assert!(lines[4].1.starts_with("orders"));
    }

    #[test]
    fn any_size_is_filled_and_none_is_overrun() {
        let rows = some_rows();
        let frame = Frame { path: "/var/lib/shop", log: None, rows: &rows, all: 4, trouble: None };
        for width in (0..130).chain([1_000]) {
            for height in [0, 1, 2, 4, 5, 6, 8, 9, 100] {
                let lines = lines(&frame, &view(), (width, height));
                assert_eq!(lines.len(), usize::from(height), "{width} by {height}");
                for (_, line) in lines {
                    assert_eq!(line.width(), usize::from(width), "{width} by {height}: {line}");
                }
            }
        }
    }
}
