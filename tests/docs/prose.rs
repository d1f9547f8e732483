//! How pages and comments are written: lines of at most 100 columns, and the words of the field, each thing by one word.
//!
//! What stands between backticks or in a code block is a name or code, and no prose.

use super::{pages, read, root};
use std::path::{Path, PathBuf};

const COLUMNS: usize = 100;
/// Words that no prose may use, and what to write.
const BANNED: &[(&str, &str)] = &[
    ("at hand", "cached"),
    ("awaited", "pending"),
    ("beat", "tick"),
    ("beats", "ticks"),
    ("built segment", "rewritten segment"),
    ("built segments", "rewritten segments"),
    ("built whole", "written completely"),
    ("charge", "count"),
    ("charged", "counted"),
    ("charges", "counts"),
    ("chore", "maintenance"),
    ("chores", "maintenance"),
    ("dead segment", "reclaimable segment"),
    ("dead segments", "reclaimable segments"),
    ("dead token", "stale token"),
    ("dead tokens", "stale tokens"),
    ("death of the process", "process crash"),
    ("evidence", "tail scan"),
    ("fold", "replay, apply, state"),
    ("folded", "replayed, applied"),
    ("folding", "replaying, applying"),
    ("folds", "replays, applies"),
    ("gave up", "dead-lettered"),
    ("give up", "dead-letter"),
    ("hand on the directory", "file manager"),
    ("hand out", "deliver"),
    ("handed out", "delivered"),
    ("hands out", "delivers"),
    ("keeper", "file manager"),
    ("laid out", "initialized"),
    ("lay out", "initialize"),
    ("lays out", "initializes"),
    ("lone", "exclusive"),
    ("own frame", "control frame"),
    ("own frames", "control frames"),
    ("parcel", "delivery buffer"),
    ("parcels", "delivery buffers"),
    ("passed over", "skipped"),
    ("planted", "injected"),
    ("power cut", "power failure"),
    ("power cuts", "power failures"),
    ("process death", "process crash"),
    ("pulse", "flusher, tick"),
    ("put off", "postpone"),
    ("spare", "standby segment"),
    ("survey", "directory scan"),
    ("uncharged", "not counted"),
    ("unproven", "unsynced"),
    ("whoever", "name the actor"),
];
/// A word that stands only behind this one.
const ONLY_BEHIND: &[(&str, &str)] = &[("letter", "dead"), ("letters", "dead")];
/// Pages of figures: their words are those of the programs that wrote them.
const GENERATED: &[&str] = &["docs/measured/"];

/// What is wrong with the width of a page.
fn too_wide(page: &str) -> Vec<usize> {
    let mut is_code = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(page.lines()) {
        is_code ^= line.starts_with("```");
        // A row of a table, and an image or a link by itself, cannot be wrapped.
        if line.chars().count() > COLUMNS && !is_code && !line.starts_with(['|', '!']) {
            found.push(number);
        }
    }
    found
}

/// Rows of a table that do not stand in lines of their own: they are shown as running text.
fn loose_rows(page: &str) -> Vec<usize> {
    let mut is_code = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(page.lines()) {
        is_code ^= line.starts_with("```");
        let is_loose = line.contains("| | ") || line.contains("| ---");
        if is_loose && !is_code && !line.starts_with('|') {
            found.push(number);
        }
    }
    found
}

/// The prose of a page: its lines, with code and the targets of links left out.
fn of_page(page: &str) -> Vec<(usize, String)> {
    let mut is_code = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(page.lines()) {
        is_code ^= line.starts_with("```");
        if !is_code {
            found.push((number, line.to_owned()));
        }
    }
    found
}

/// The comments of a source, examples left out; and the texts of its literals, if they are errors' texts.
fn of_source(text: &str, with_literals: bool) -> Vec<(usize, String)> {
    let mut is_code = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let comment = match line.trim_start() {
            whole if whole.starts_with("//") => whole.trim_start_matches(['/', '!']).trim_start(),
            code => {
                is_code = false;
                if with_literals {
                    found.extend(code.split('"').skip(1).step_by(2).map(|literal| (number, literal.to_owned())));
                }
                code.split_once(" // ").map_or("", |(_, comment)| comment)
            }
        };
        is_code ^= comment.starts_with("```");
        if !is_code && !comment.starts_with("seam:") {
            found.push((number, comment.to_owned()));
        }
    }
    found
}

/// The line without the targets of its links.
fn without_targets(line: &str) -> String {
    let mut parts = line.split("](");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "] " + part.split_once(')').map_or("", |(_, rest)| rest))
}

/// The banned words of some prose, each with its line. A word may go over the end of a line.
fn banned(prose: &[(usize, String)]) -> Vec<String> {
    let mut words: Vec<(usize, String)> = Vec::new();
    let mut in_code = false;
    for (number, line) in prose {
        for (index, part) in without_targets(line).split('`').enumerate() {
            in_code = if index > 0 { !in_code } else { in_code && !part.is_empty() };
            if in_code {
                words.push((*number, "`".to_owned()));
                continue;
            }
            let split = part.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty());
            words.extend(split.map(|word| (*number, word.to_lowercase())));
        }
    }
    let mut found = Vec::new();
    for (at, (number, word)) in words.iter().enumerate() {
        for (phrase, instead) in BANNED {
            let mut rest = words[at..].iter().map(|(_, word)| word.as_str());
            if phrase.split(' ').all(|part| rest.next() == Some(part)) {
                found.push(format!("{number}: \"{phrase}\"; write: {instead}"));
            }
        }
        for (only, before) in ONLY_BEHIND {
            if word == only && words[..at].last().is_none_or(|(_, last)| last != before) {
                found.push(format!("{number}: \"{word}\"; write: {before} {word}"));
            }
        }
    }
    found
}

/// The lines with a sentence that says "Who" of an actor instead of its name. A question may.
fn riddles(prose: &[(usize, String)]) -> Vec<String> {
    let is_riddle = |line: &str| {
        let mut words = line.split(|c: char| !c.is_alphanumeric());
        !line.contains('?') && words.any(|word| ["Who", "Whose", "Whom"].contains(&word))
    };
    let found = prose.iter().filter(|(_, line)| is_riddle(line));
    found.map(|(number, _)| format!("{number}: \"Who\"; write: name the actor")).collect()
}

/// The rows of the tables of bugs that say a bug in more than one sentence.
fn long_winded(page: &str) -> Vec<usize> {
    let bug = |row: &str| row.trim_start_matches('|').split(" | ").next().unwrap_or_default().trim().to_owned();
    let has_more = |row: &str| [". ", "; ", ": "].iter().any(|end| bug(row).contains(end));
    (1..).zip(page.lines()).filter(|(_, line)| line.starts_with('|') && has_more(line)).map(|(line, _)| line).collect()
}

/// Every source, by its path from the root.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("it can be listed") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push((below_root(&path), read(&path)));
            }
        }
    }
    found.sort();
    found
}

fn below_root(path: &Path) -> String {
    path.strip_prefix(root()).expect("it is below").to_string_lossy().into_owned()
}

#[test]
fn no_line_of_a_page_is_wider_than_100_columns() {
    let mut found = Vec::new();
    for (path, page) in pages().into_iter().chain([(root().join("README.md"), read("README.md"))]) {
        found.extend(too_wide(&page).iter().map(|line| format!("{}:{line}", below_root(&path))));
    }
    assert!(found.is_empty(), "wrap these lines at {COLUMNS} columns:\n{}", found.join("\n"));
}

#[test]
fn each_row_of_a_table_has_a_line() {
    let found = pages().into_iter().flat_map(|(path, page)| {
        loose_rows(&page).into_iter().map(move |line| format!("{}:{line}", below_root(&path)))
    });
    let found: Vec<_> = found.collect();
    assert!(found.is_empty(), "rows within running text:\n{}", found.join("\n"));
    assert_eq!(loose_rows("| a | b |\n| --- | --- |\n   | a | b | | --- | --- | | c |\n```\na | | b\n```"), [3]);
}

#[test]
fn pages_use_no_banned_word() {
    let mut found = Vec::new();
    for (path, page) in pages().into_iter().chain([(root().join("README.md"), read("README.md"))]) {
        let name = below_root(&path);
        if GENERATED.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let prose = of_page(&page);
        found.extend(banned(&prose).into_iter().chain(riddles(&prose)).map(|complaint| format!("{name}:{complaint}")));
    }
    assert!(found.is_empty(), "banned words:\n{}", found.join("\n"));
}

#[test]
fn comments_and_error_texts_use_no_banned_word() {
    let mut found = Vec::new();
    for (name, text) in sources() {
        let prose = of_source(&text, name == "src/error.rs");
        found.extend(banned(&prose).into_iter().chain(riddles(&prose)).map(|complaint| format!("{name}:{complaint}")));
    }
    assert!(found.is_empty(), "banned words:\n{}", found.join("\n"));
}

#[test]
fn a_banned_word_is_found() {
    let page = |text: &str| banned(&of_page(text));
    assert_eq!(
        page("A keeper.\n\nIt was handed\nout."),
        ["1: \"keeper\"; write: file manager", "3: \"handed out\"; write: delivered"]
    );
    assert_eq!(page("dead letters and letters"), ["1: \"letters\"; write: dead letters"]);
    assert_eq!(page("(a keeper) [b](keeper.md)"), ["1: \"keeper\"; write: file manager"]);
    assert_eq!(page("`keeper`, [a](keeper.md)\n```\nkeeper\n```"), Vec::<String>::new());
    let source = |text: &str| banned(&of_source(text, true));
    assert_eq!(
        source("/// Whoever\nlet chores = 1; // a beat\n"),
        ["1: \"whoever\"; write: name the actor", "2: \"beat\"; write: tick"]
    );
    assert_eq!(source("f(\"a spare\")"), ["1: \"spare\"; write: standby segment"]);
    assert_eq!(source("// seam: a keeper\n/// ```\n/// keeper();\n/// ```\n"), Vec::<String>::new());
}

#[test]
fn a_riddle_is_found() {
    let page = |text: &str| riddles(&of_page(text));
    assert_eq!(page("It ends.\nWho waits is woken."), ["2: \"Who\"; write: name the actor"]);
    assert_eq!(page("Who waits?\nA consumer who waits is woken."), [""; 0]);
}

#[test]
fn a_bug_is_one_sentence() {
    assert_eq!(long_winded(&read("docs/internals/bugs.md")), [0; 0], "lines with more than one");
    assert_eq!(long_winded("| It failed: often | a: b |\n| It failed. It did | a |\n| It failed | a; b |"), [1, 2]);
}

#[test]
fn a_wide_line_is_found() {
    let wide = "w".repeat(COLUMNS + 1);
    assert_eq!(too_wide(&format!("{}\n{wide}\n| {wide} |\n```\n{wide}\n```\n", "w".repeat(COLUMNS))), [2]);
}
