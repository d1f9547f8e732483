//! The code that decides what is on disk may not change without a look at docs/reference/format.md.

use super::{read, root};
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/reference/format.md";
const MARK: &str = "<!-- fingerprint of the sources: ";

/// Everything that lays out bytes. Directories count with all that is in them.
const SOURCES: [&str; 7] = [
    "src/log/format",
    "src/log/read/index.rs",
    "src/log/write/slots.rs",
    "src/record/codec",
    "src/record/codec.rs",
    "src/record/message.rs",
    "src/record/wire.rs",
];
const MORE: [&str; 1] = ["src/limits.rs"];
/// Each part of a snapshot lies in a file of this name somewhere below.
const SNAPSHOTS: (&str, &str) = ("src/state", "snapshot.rs");

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("it can be listed") {
            files(&entry.expect("it can be listed").path(), found);
        }
    } else if path.file_name().is_some_and(|name| name != "tests.rs") {
        found.push(path.to_owned());
    }
}

/// The code without comments, blank lines, and the tests at its end.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    shipped.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"))
}

fn fingerprint() -> u64 {
    let mut found = Vec::new();
    let (folder, name) = SNAPSHOTS;
    files(&root().join(folder), &mut found);
    found.retain(|path| path.ends_with(name));
    SOURCES.iter().chain(&MORE).for_each(|path| files(&root().join(path), &mut found));
    found.sort();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for path in found {
        for line in code(&read(path)) {
            let bytes = line.bytes().chain([b'\n']);
            hash = bytes.fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        }
    }
    hash
}

#[test]
fn the_page_of_the_format_was_read_again_since_its_code_changed() {
    let (page, now) = (read(PAGE), format!("{:016x}", fingerprint()));
    let noted = page.split(MARK).nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("none");
    assert_eq!(
        noted, now,
        "the code that writes and reads the bytes on disk has changed since {PAGE} was last compared with it. \
         See what changed ({SOURCES:?}, {MORE:?}, {SNAPSHOTS:?}), correct the page where it is not true any more, and note {now} at its end"
    );
}
