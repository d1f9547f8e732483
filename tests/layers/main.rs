//! The rules of the house, checked: layers, reserved calls, sizes, leftovers. `rules` says which they are.
//!
//! A complaint names the file, the line and what to do. The second half of this file feeds the checker bad code and sees
//! it complain: a checker that finds nothing may just be blind.

mod lexer;
mod rules;

use rules::{EXEMPTIONS, Exemptions, Sources};
use std::path::Path;

/// All Rust files below a folder of the repository, by their paths from there.
fn read_sources(folder: &str) -> Sources {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut sources = Sources::new();
    let mut left = vec![root.clone()];
    while let Some(folder) = left.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("the folder can be listed").path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).expect("it lies below").to_string_lossy().replace('\\', "/");
                sources.insert(name, std::fs::read_to_string(&path).expect("the file can be read"));
            }
        }
    }
    sources
}

#[test]
fn the_sources_keep_the_rules() {
    let sources = read_sources("src");
    assert!(sources.len() > 5, "src/ was not found");
    let complaints = rules::complaints(&sources, &EXEMPTIONS);
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn no_test_is_ignored_anywhere() {
    for folder in ["src", "tests", "examples", "benches", "fuzz"] {
        for (path, text) in read_sources(folder) {
            let complaints = rules::ignored_tests(&format!("{folder}/{path}"), &lexer::blank(&text));
            assert!(complaints.is_empty(), "{}", complaints.join("\n"));
        }
    }
}

const NONE: Exemptions = Exemptions { imports: &[], long_functions: &[], long_files: &[] };

/// What the checker says to a crate of these files. A head line is put before each, so code begins on line 2; `lib.rs`
/// declares `log`, `state`, `engine`, `api`, `disk` and `clock` as far as they are given.
fn check(files: &[(&str, &str)]) -> Vec<String> {
    check_but(files, &NONE)
}

fn check_but(files: &[(&str, &str)], exempt: &Exemptions) -> Vec<String> {
    let mut sources: Sources =
        files.iter().map(|(path, code)| ((*path).to_owned(), format!("//! Head.\n{code}"))).collect();
    let top =
        |path: &&str| matches!(path.split('/').collect::<Vec<_>>()[..], [_] | [_, "mod.rs"]) && **path != *"lib.rs";
    let declare = |path: &str| format!("mod {};\n", path.split(['/', '.']).next().unwrap_or_default());
    let mods: String = files.iter().map(|(path, _)| *path).filter(top).map(declare).collect();
    sources.entry("lib.rs".to_owned()).or_insert_with(|| format!("//! Head.\n{mods}"));
    rules::complaints(&sources, exempt)
}

#[track_caller]
fn assert_complains(path: &str, code: &str, complaint: &str) {
    let found = check(&[(path, code)]);
    assert!(found.iter().any(|it| it.contains(complaint)), "no complaint {complaint:?} about\n{code}\nbut {found:?}");
}

#[track_caller]
fn assert_fine(path: &str, code: &str) {
    assert_eq!(check(&[(path, code)]), Vec::<String>::new(), "about\n{code}");
}

#[test]
fn an_import_that_points_up_is_found() {
    assert_complains("log/mod.rs", "use crate::state::State;", "log/mod.rs:2: `log` must not know `state`");
    assert_complains("log/mod.rs", "use crate::record;", "`log` must not know `record`");
    assert_complains("log/mod.rs", "use crate::{disk::Disk, engine::Engine};", "`log` must not know `engine`");
    assert_complains("record/mod.rs", "use crate::{ids, disk};", "`record` must not know `disk`");
    assert_complains("state/mod.rs", "use crate::clock::Clock;", "`state` must not know `clock`");
    assert_complains(
        "state/mod.rs",
        "\n\nfn f() { crate::log::open(); }",
        "state/mod.rs:4: `state` must not know `log`",
    );
    assert_complains("api/mod.rs", "pub use crate::record::Cause;", "`api` must not know `record`");
    assert_complains("disk/mod.rs", "use crate::log::{self as l, x::{y, z}};", "`disk` must not know `log`");
    assert_complains("ids.rs", "use crate::clock::Clock;", "`ids` must not know `clock`");
    assert_complains("clock.rs", "use crate::disk;", "`clock` must not know `disk`");
}

#[test]
fn climbing_up_is_found_too() {
    assert_complains("log/mod.rs", "use super::state::State;", "`log` must not know `state`");
    let files = [("log/mod.rs", "mod frame;"), ("log/frame.rs", "use super::super::engine;")];
    assert!(check(&files)[0].contains("log/frame.rs:2: `log` must not know `engine`"));
    let inline = "mod inner {\n  use super::super::engine::Engine;\n}";
    assert_complains("log/mod.rs", inline, "log/mod.rs:3: `log` must not know `engine`");
    // One level less stays inside.
    assert_fine("log/mod.rs", "mod inner {\n  use super::engine::Engine;\n}");
    assert_fine("log/mod.rs", "use self::state::State; use disk::x; fn f() { engine::go(); }");
}

#[test]
fn imports_that_point_down_are_fine() {
    assert_fine("log/mod.rs", "use crate::disk::{Disk, File};\nuse crate::ids::Lsn;\nuse crate::log::frame;");
    assert_fine("engine/mod.rs", "use crate::{clock, disk, error, ids, limits, log, record, state};");
    assert_fine("state/mod.rs", "// crate::disk\n/* crate::log */ const TEXT: &str = \"crate::engine\";");
    assert_fine("state/mod.rs", "#[cfg(test)]\nmod tests {\n  use crate::engine::Engine;\n}");
}

#[test]
fn a_layer_or_a_name_that_the_table_does_not_know_is_found() {
    assert_complains("helpers.rs", "", "the layer `helpers` is not in the table");
    assert_complains("log/mod.rs", "use crate::Result;", "`Result` is taken from the crate's root");
}

#[test]
fn reserved_calls_are_found() {
    assert_complains("log/mod.rs", "use std::fs::File;", "`std::fs` here");
    assert_complains("log/mod.rs", "use std::{io, fs};", "`std::fs` here");
    assert_complains("api/mod.rs", "fn f() { std::fs::remove_file(p); }", "api/mod.rs:2: `std::fs` here");
    assert_complains("engine/mod.rs", "use std::time::{Duration, Instant};", "`std::time::Instant` here");
    assert_complains(
        "api/mod.rs",
        "use std::time::SystemTime; fn f() { SystemTime::now(); }",
        "`SystemTime::now` here",
    );
    assert_complains("log/mod.rs", "use std::thread;", "`std::thread` here");
    assert_complains("disk/real.rs", "use memmap2::MmapRaw;", "`memmap2` here");
    assert_complains("engine/mod.rs", "use std::thread;", "`std::thread` here");
    assert_fine("sync.rs", "pub(crate) use std::thread::Builder;");
    assert_complains("api/mod.rs", "use crate::sync::Builder;", "threads belong to the engine");
    assert_fine("disk/mod.rs", "use std::fs;");
    assert_fine("clock.rs", "use std::time::Instant;");
    assert_fine("api/mod.rs", "use std::time::SystemTime; use std::fmt; use std::fs_like;");
    assert_fine("log/mod.rs", "#[test]\nfn f() { std::thread::spawn(g); }\nfn h() {}");
}

#[test]
fn unsafe_code_is_found_outside_its_file() {
    assert_complains("log/mod.rs", "fn f() { unsafe { g() } }", "log/mod.rs:2: `unsafe` belongs to disk/map.rs");
    assert_complains("log/mod.rs", "#[cfg(test)]\nmod tests { unsafe fn f() {} }", "`unsafe` belongs");
    assert_fine("log/mod.rs", "#![allow(unsafe_code)] // unsafe");
    assert_eq!(check(&[("disk/mod.rs", "mod map;"), ("disk/map.rs", "unsafe fn f() {}")]), Vec::<String>::new());
}

#[test]
fn a_file_that_no_mod_leads_to_is_found() {
    let files = [("log/mod.rs", "mod frame;"), ("log/frame.rs", ""), ("log/old.rs", "")];
    assert_eq!(check(&files), ["log/old.rs: no `mod` leads to this file"]);
    let commented = [("log/mod.rs", "// mod frame;"), ("log/frame.rs", "")];
    assert_eq!(check(&commented), ["log/frame.rs: no `mod` leads to this file"]);
    let nested = [("log/mod.rs", "mod a;"), ("log/a.rs", "pub(crate) mod b;"), ("log/a/b.rs", "")];
    assert_eq!(check(&nested), Vec::<String>::new());
}

#[test]
fn leftovers_are_found() {
    for name in ["print", "println", "eprint", "eprintln", "dbg", "todo", "unimplemented"] {
        assert_complains("log/mod.rs", &format!("fn f() {{ {name}!(); }}"), &format!("`{name}!` in a library"));
    }
    assert_complains("log/mod.rs", "#[test]\n#[ignore]\nfn f() {}", "log/mod.rs:3: an ignored test");
    assert_complains("log/mod.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}", "an ignored test");
    assert_complains("log/mod.rs", "#[cfg_attr(x, ignore)]\nfn f() {}", "an ignored test");
    assert_fine("log/mod.rs", "fn f() { writeln!(out, \"println!\"); } // dbg!(x)");
}

#[test]
fn a_file_without_a_head_is_found() {
    assert_eq!(check(&[("ids.rs", "")]), Vec::<String>::new());
    let sources: Sources =
        [("lib.rs".to_owned(), "//! Head.\nmod ids;".to_owned()), ("ids.rs".to_owned(), "// A note.".to_owned())]
            .into();
    let complaints = rules::complaints(&sources, &NONE);
    assert_eq!(complaints, ["ids.rs:1: begins with no `//!` line that says what lives here and what never may"]);
}

#[test]
fn what_is_too_long_is_found() {
    let function = |lines: usize| format!("fn long() {{\n{}}}\nfn short() {{}}\n", "    g();\n".repeat(lines - 2));
    assert_fine("log/mod.rs", &function(70));
    assert_complains("log/mod.rs", &function(71), "log/mod.rs:2: fn long has 71 lines, 70 are allowed");
    assert_fine("log/mod.rs", &format!("#[test]\n{}", function(71)));
    // With the head line: 450, then 451.
    assert_fine("log/mod.rs", &"const A: u8 = 0;\n".repeat(449));
    assert_complains("log/mod.rs", &"const A: u8 = 0;\n".repeat(450), "451 lines without tests, 450 are allowed");
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "const A: u8 = 0;\n".repeat(500));
    assert_fine("log/mod.rs", &tests);
    assert_eq!(
        check(&[("log/mod.rs", "#[cfg(test)]\nmod tests;"), ("log/tests.rs", &function(100))]),
        Vec::<String>::new()
    );
}

#[test]
fn an_exemption_holds_for_its_place_and_its_length_and_no_longer_than_needed() {
    let exempt = Exemptions {
        imports: &[("log/mod.rs", "state", "because")],
        long_functions: &[("log/mod.rs", "long", 80, "because")],
        long_files: &[],
    };
    let code = |lines: usize| format!("use crate::state::State;\nfn long() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
    assert_eq!(check_but(&[("log/mod.rs", &code(80))], &exempt), Vec::<String>::new());
    let grown = check_but(&[("log/mod.rs", &code(81))], &exempt);
    assert_eq!(grown, ["log/mod.rs:3: fn long has 81 lines, 80 are allowed"]);
    let elsewhere = check_but(&[("log/mod.rs", &code(80)), ("disk/mod.rs", "use crate::state;")], &exempt);
    assert_eq!(elsewhere, ["disk/mod.rs:2: `disk` must not know `state`"]);
    let healed = check_but(&[("log/mod.rs", "")], &exempt);
    assert_eq!(
        healed,
        ["log/mod.rs: fn long is listed as long and is not", "log/mod.rs: may know `state` and does not"]
    );
}

#[test]
fn text_is_not_taken_for_code() {
    let blanked = |text: &str| lexer::blank(text).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(blanked("a /* b /* c */ d */ e // f"), "a e");
    assert_eq!(
        blanked(r##"a("b\"c", r#"d"e"#, b"f", br"g", 'h', '"', '\'', '\u{1F4A9}', i)"##),
        "a( , , b , b , , , , , i)"
    );
    assert_eq!(blanked("fn f<'a>(x: &'a str) -> for_r\"x\""), "fn f<'a>(x: &'a str) -> for_r");
}
