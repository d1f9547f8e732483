//! The rules of the house, checked: layers, reserved calls, sizes, leftovers. `rules` says which they are.
//!
//! A complaint names the file, the line and what to do. The second half of this file feeds the checker bad code and sees
//! it complain: a checker that finds nothing may just be blind.

mod arms;
mod exemptions;
mod rules;
mod source;
mod tokens;

use exemptions::{EXEMPTIONS, Exemptions};
use proc_macro2::TokenStream;
use rules::Sources;
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
    assert_eq!(rules::strangers(&sources), Vec::<String>::new());
}

#[test]
fn no_test_is_ignored_anywhere() {
    for folder in ["src", "tests", "examples", "benches", "fuzz"] {
        for (path, text) in read_sources(folder) {
            let tokens: TokenStream = text.parse().expect("it is Rust");
            let complaints = rules::ignored_tests(&format!("{folder}/{path}"), tokens);
            assert!(complaints.is_empty(), "{}", complaints.join("\n"));
        }
    }
}

const NONE: Exemptions = Exemptions { imports: &[], catch_alls: &[], long_functions: &[], long_files: &[] };

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
    let files = [("disk/mod.rs", "mod real;"), ("disk/real.rs", "use super::super::engine;")];
    assert!(check(&files)[0].contains("disk/real.rs:2: `disk` must not know `engine`"));
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
    let files = [("disk/mod.rs", "mod real;"), ("disk/real.rs", ""), ("disk/old.rs", "")];
    assert_eq!(check(&files), ["disk/old.rs: no `mod` leads to this file"]);
    let commented = [("disk/mod.rs", "// mod real;"), ("disk/real.rs", "")];
    assert_eq!(check(&commented), ["disk/real.rs: no `mod` leads to this file"]);
    let nested = [("disk/mod.rs", "mod a;"), ("disk/a.rs", "pub(crate) mod b;"), ("disk/a/b.rs", "")];
    assert_eq!(check(&nested), Vec::<String>::new());
}

#[test]
fn leftovers_are_found() {
    for name in ["print", "println", "eprint", "eprintln", "dbg", "todo", "unimplemented", "proptest"] {
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
        catch_alls: &[],
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
    let bad = "use crate::engine::E; unsafe {} #[ignore] dbg!(x) std::fs::read()";
    assert_fine("log/mod.rs", &format!("//! {bad}\n/* a /* {bad} */ {bad} */\n/// {bad}\nfn f() {{}} // {bad}"));
    assert_fine("log/mod.rs", &format!("const A: [&str; 2] = [\"{bad}\", r##\"\" \"# {bad}\"##];"));
    assert_fine("log/mod.rs", &format!("#[doc = \"{bad}\"] const A: &[u8] = br#\"\"{bad}\"#;"));
    assert_fine(
        "log/mod.rs",
        &format!("fn f<'a>(x: &'a str) -> [char; 3] {{ g(b'\\''); ['\"', '\\'', 'h'] }} // {bad}"),
    );
    // And what stands behind it is seen.
    let behind = "fn f<'unsafe_>(x: &'unsafe_ str) -> char { '\"' } fn g() { unsafe { h('\"') } }";
    assert_complains("log/mod.rs", behind, "log/mod.rs:2: `unsafe` belongs");
    assert_fine("log/mod.rs", "fn f(r#unsafe: u8, dbg: u8) -> bool { dbg != r#unsafe }");
    assert_complains("log/mod.rs", "fn f() {\n  let;\n}", "log/mod.rs:3: cannot be read");
}

#[test]
fn a_path_is_found_however_it_is_written() {
    let nested =
        "use {\n  std::fmt,\n  crate::{disk::{self, File as F}, ids as i,\n    state::{a, b::{self, c}, *}},\n};";
    assert_complains("log/mod.rs", nested, "log/mod.rs:5: `log` must not know `state`");
    for code in [
        "use crate::r#engine::E;",
        "use r#crate_::X; use self::super::engine::E;",
        "pub(in crate::engine) fn f() {}",
        "fn f(x: Vec<Option<crate::engine::E>>) {}",
        "fn f() { <crate::engine::E>::new(); }",
        "fn f() { <u8 as crate::engine::E>::new(); }",
        "fn f(x: &dyn Fn(crate::engine::E)) {}",
        "#[derive(Debug, crate::engine::Derive)] struct S;",
        "#[cfg_attr(unix, crate::engine::attribute)] struct S;",
        // Macros: called, given an expression, statements, a pattern, what is no code at all, and made.
        "crate::engine::make!();",
        "fn f() { assert_eq!(1, crate::engine::E, \"{}\", 1); }",
        "fn f() { assert!(matches!(x, Some(crate::engine::E::A | crate::engine::E::B { .. }) if y)); }",
        "given! { let x = 1; use crate::{disk::D, engine::{E, F as G}}; }",
        "given! { a => use crate::{disk::{D}, engine::{E, F as G}}; }",
        "given! { a => [b: crate::engine::E] }",
        "macro_rules! m { ($x:expr) => { $crate::engine::go($x) }; }",
    ] {
        assert_complains("log/mod.rs", code, "log/mod.rs:2: `log` must not know `engine`");
    }
    let import_of_import = "use crate as root; fn f() { root::engine::go(); }";
    assert_complains("log/mod.rs", import_of_import, "`log` must not know `engine`");
    for code in ["fn f() { ::std::fs::read(p); }", "extern crate memmap2 as m;", "given! { a => memmap2::Mmap }"] {
        assert_complains("log/mod.rs", code, " here: ");
    }
    assert_complains("log/mod.rs", "use std::time::*;", "`std::time::Instant` here");
    assert_fine("log/mod.rs", "use std::io::{self, *}; use crate::{disk::{File, *}, ids::{Lsn as L}};");
}

#[test]
fn what_is_there_in_tests_only_may_know_all() {
    for code in [
        "#[cfg(all(unix, test))]\nmod tests { use crate::engine::E; }",
        "#[cfg(any(test, all(test, unix)))]\nuse crate::engine::E;",
        "# [ cfg ( test ) ]\nuse crate::engine::{E, F};",
        "#![cfg(test)]\nuse crate::engine::E;",
        "struct S { #[cfg(test)] e: crate::engine::E }\nenum E { #[cfg(test)] A(crate::engine::E) }",
        "struct S; impl S { #[cfg(test)] fn f() { crate::engine::go(); } #[cfg(test)] const E: u8 = crate::engine::E; }",
        "fn f() {\n  #[cfg(test)]\n  crate::engine::go();\n  #[cfg(test)]\n  let x = crate::engine::E;\n}",
        "fn f() { match x {\n  #[cfg(test)]\n  A => crate::engine::go(),\n  B => S { #[cfg(test)] e: crate::engine::E },\n} }",
        "mod inner { #[cfg(test)] mod tests { mod deep { fn f() { crate::engine::go(); } } } }",
    ] {
        assert_fine("log/mod.rs", code);
    }
    for code in [
        "#[cfg(not(test))] use crate::engine::E;",
        "#[cfg(any(test, feature = \"simulation\"))] use crate::engine::E;",
        "#[cfg(test)] use crate::disk::{A, B}; use crate::engine::E;",
        "#[cfg(test)] mod tests {} use crate::engine::E;",
        "fn f() { #[cfg(test)] g(); crate::engine::go(); }",
        "#[cfg_attr(test, allow(dead_code))] fn f() { crate::engine::go(); }",
    ] {
        assert_complains("log/mod.rs", code, "log/mod.rs:2: `log` must not know `engine`");
    }
    // A file in an inline module of tests is one of theirs.
    let files = [("disk/mod.rs", "#[cfg(test)]\nmod t { mod a; }"), ("disk/t/a.rs", "use crate::engine::E;")];
    assert_eq!(check(&files), Vec::<String>::new());
}

#[test]
fn leftovers_in_macros_are_found() {
    assert_complains("log/mod.rs", "given! { a => std::println!(\"{}\", x) }", "`println!` in a library");
    assert_complains("log/mod.rs", "given! { a => unsafe { x } }", "`unsafe` belongs");
    assert_complains("log/mod.rs", "given! {\n #[test]\n #[ignore]\n fn f() {} }", "log/mod.rs:4: an ignored test");
    assert_complains(
        "log/mod.rs",
        "#[cfg_attr(a, inline, cfg_attr(b, ignore = \"slow\"))]\nfn f() {}",
        "an ignored test",
    );
    assert_fine("log/mod.rs", "#[cfg_attr(ignore, inline)]\nfn f() {}");
    let made = format!("macro_rules! m {{ ($x:expr) => {{\n  fn long() {{\n{}  }} }} }}", "    $x;\n".repeat(69));
    assert_complains("log/mod.rs", &made, "log/mod.rs:3: fn long has 71 lines");
}

/// What the checker says to a log with these lines in one of its rooms.
fn check_room(room: &str, code: &str) -> Vec<String> {
    let top = "pub(crate) mod format; mod error; mod read; mod write; mod recover;\n\
               pub(crate) use write::appender::Appender; use write::slots as s; pub(crate) use format::Class;\n\
               pub(crate) struct Settings;";
    let rooms = ["format", "error", "read", "write", "recover"].map(|room| format!("log/{room}.rs"));
    let mut files = vec![("log/mod.rs", top)];
    files.extend(rooms.iter().map(|path| (path.as_str(), if *path == format!("log/{room}.rs") { code } else { "" })));
    check(&files)
}

#[test]
fn what_reads_in_the_log_knows_nothing_of_what_writes() {
    let forbidden = [
        ("read", "write"),
        ("read", "recover"),
        ("format", "read"),
        ("format", "write"),
        ("format", "recover"),
        ("write", "recover"),
        ("error", "read"),
    ];
    for (room, other) in forbidden {
        let expected = format!("log/{room}.rs:2: `log/{room}` must not know `log/{other}`");
        for code in ["use crate::log::OTHER::X;", "fn f(x: super::OTHER::X) {}", "use super::OTHER; use OTHER::X;"] {
            let found = check_room(room, &code.replace("OTHER", other));
            assert_eq!(found.first(), Some(&expected), "{room} knows {other}: {code}");
        }
    }
    for (room, code) in [
        ("read", "use crate::log::format::X; use super::error::E; use super::{Class, Settings};"),
        ("write", "use crate::log::{read::R, format::F, Class};"),
        ("recover", "use crate::log::{read::R, format::F, write::W, Appender}; use super::s;"),
        ("read", "#[cfg(test)]\nmod tests { use super::super::write::W; }"),
    ] {
        assert_eq!(check_room(room, code), Vec::<String>::new(), "{room}: {code}");
    }
    // Through a name that the log passes on, or that stands for it.
    for code in [
        "use crate::log::Appender;",
        "use crate::log::{Class, Appender as A};",
        "fn f(x: super::s::Slot) {}",
        "use crate::log; fn f(x: log::Appender) {}",
        "use crate::log as l; fn f() { l::write::go(); }",
    ] {
        assert_eq!(check_room("read", code), ["log/read.rs:2: `log/read` must not know `log/write`"], "{code}");
    }
    let all = check_room("read", "use super::*;");
    assert_eq!(all, ["log/read.rs:2: `*` is taken from the module around, not from the layer that it lives in"]);
    let unknown = check(&[("log/mod.rs", "mod attic;"), ("log/attic.rs", "")]);
    assert_eq!(unknown, ["log/attic.rs:1: the layer `log/attic` is not in the table of layers"]);
}

/// A `match` with these arms.
fn arms(arms: &str) -> String {
    format!("fn f() {{\n  match x {{\n{arms}\n  }}\n}}")
}

#[test]
fn an_arm_that_catches_the_rest_is_found() {
    for name in ["Command", "Record", "Error", "Rejection", "Wakes", "Room", "AppendError", "Decision", "Refusal"] {
        let complaint = format!("log/mod.rs:5: this arm catches the rest of `{name}`: name its variants");
        for rest in ["_ => {}", "rest => panic!(\"{rest}\"),", "rest => rest.go(),", "C | _ => {}", "ref rest => g(1),"]
        {
            assert_complains("log/mod.rs", &arms(&format!("{name}::A => {{}}\n{rest}")), &complaint);
        }
    }
    let rest = "this arm catches the rest of `Record`";
    for pattern in
        ["crate::record::Record::A { x, .. }", "Some(Record::A(_))", "&(Record::A | Record::B)", "x @ Record::A"]
    {
        assert_complains("log/mod.rs", &arms(&format!("{pattern} => {{}}\n_ => {{}}")), rest);
    }
    // At the same place, deeper in.
    assert_complains("log/mod.rs", &arms("Ok(Record::A) => {}\nOk(_) => {}\nErr(e) => {}"), rest);
    assert_complains("log/mod.rs", &arms("(a, S { b: Record::A }) => {}\n(a, S { b }) => {}"), rest);
    assert_fine("log/mod.rs", &arms("Ok(Record::A | Record::B) => {}\nErr(_) => {}"));
    assert_fine("log/mod.rs", &arms("(Record::A, 1) => {}\n(Record::A | Record::B, _) => {}"));
    assert_fine("log/mod.rs", &arms("Record::A(_, x) => {}\nRecord::B { y: _, .. } => {}\nNONE => {}"));
    assert_fine("log/mod.rs", &arms("Kind::A => {}\n_ => {}"));
    // A guard may refuse; the compiler asks for the rest.
    assert_fine("log/mod.rs", &arms("Record::A => {}\nx if x.is_b() => {}\nRecord::B | Record::C => {}"));
    assert_fine("log/mod.rs", "fn f() { if matches!(x, Record::A | Record::B) {} let Record::A = x else { return }; }");
    assert_fine("log/mod.rs", &format!("#[cfg(test)]\nmod t {{ {} }}", arms("Record::A => {}\n_ => {}")));
    let in_macro = "fn f() { assert!(match x { Record::A => true, _ => false }); }";
    assert_complains("log/mod.rs", in_macro, rest);
}

#[test]
fn an_enum_is_known_under_all_its_names() {
    let complaint = "this arm catches the rest of `Record`";
    let own = "fn f(self) { match self { Self::A => 1, _ => 2 } }";
    assert_complains("log/mod.rs", &format!("impl Record {{ {own} }}"), complaint);
    assert_complains("log/mod.rs", &format!("impl<'a> fmt::Display for record::Record<'a> {{ {own} }}"), complaint);
    assert_fine("log/mod.rs", &format!("impl Kind {{ {own} }} impl Record {{}}"));
    let renamed = arms("R::A => {}\n_ => {}");
    assert_complains("state/mod.rs", &format!("use crate::record::Record as R;\n{renamed}"), complaint);
    for import in ["Record::A", "Record::*", "{Kind, Record::{self, A}}", "Record::{A as B}"] {
        let code = format!("use crate::record::{import};");
        assert_complains("state/mod.rs", &code, "state/mod.rs:2: a variant of `Record` is to be named with it");
    }
    assert_fine("state/mod.rs", "use crate::record::{Record, Record as R};");
    assert_fine("state/mod.rs", "use crate::record::Record::{self};");
}

#[test]
fn an_error_may_be_handed_on_as_it_is_and_only_an_error() {
    for rest in [
        "other => other",
        "Err(error) => Err(error)",
        "Err(error) => return Err(error)",
        "Err(error) => return Err(error.into())",
        "Err(error) => { drop(x); Err(self.refused(error).into()) }",
        "Err(error) => { return g(1, error); }",
    ] {
        assert_fine("log/mod.rs", &arms(&format!("Err(Error::A) => {{}}\nOk(()) => {{}}\n{rest}")));
        assert_complains(
            "log/mod.rs",
            &arms(&format!("Err(Record::A) => {{}}\nOk(()) => {{}}\n{rest}")),
            "of `Record`",
        );
    }
    for rest in [
        "Err(_) => {}",
        "Err(error) => {}",
        "Err(error) => { g(error); Ok(()) }",
        "Err(error) => Err(error.to_string())",
        "Err(error) => self.fail(&format!(\"{error}\"))",
    ] {
        assert_complains("log/mod.rs", &arms(&format!("Err(Error::A) => {{}}\n{rest}")), "the rest of `Error`");
    }
}

#[test]
fn an_exemption_for_an_arm_holds_for_its_function() {
    let exempt = Exemptions { catch_alls: &[("log/mod.rs", "f", "because")], ..NONE };
    let code = arms("Record::A => {}\n_ => {}");
    assert_eq!(check_but(&[("log/mod.rs", &code)], &exempt), Vec::<String>::new());
    let other = check_but(&[("log/mod.rs", &format!("{code}\n{}", code.replace("fn f", "fn g")))], &exempt);
    assert_eq!(other, ["log/mod.rs:11: this arm catches the rest of `Record`: name its variants"]);
    let healed = check_but(&[("log/mod.rs", "")], &exempt);
    assert_eq!(healed, ["log/mod.rs: fn f may have a catch-all arm and has none"]);
}

#[test]
fn a_table_that_names_what_is_not_there_is_found() {
    let lost = rules::strangers(&[("lib.rs".to_owned(), "//! Head.".to_owned())].into());
    for expected in ["the table has `disk`,", "the table has `log/read`,", "no enum is named `Record`"] {
        assert!(lost.iter().any(|it| it.starts_with(expected)), "no {expected:?} in {lost:?}");
    }
}
