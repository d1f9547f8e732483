//! The rules of the house: which layer knows which, what may be used where, how long things may be.
//!
//! Each rule takes all of `src/` and returns its complaints. Never here: reading files.

use crate::lexer::{self, NamedPath};
use std::collections::{BTreeMap, BTreeSet};

/// The longest function, in lines.
const FUNCTION_LINES_MAX: usize = 70;
/// The longest file, in lines that are not tests.
const FILE_LINES_MAX: usize = 450;

/// What each layer may know besides itself. From the bottom up; imports point down only.
const LAYERS: &[(&str, &[&str])] = &[
    ("ids", &["limits", "error"]),
    ("limits", &["ids", "error"]),
    ("error", &["ids", "limits"]),
    ("clock", &["ids", "limits", "error"]),
    ("sync", &[]),
    ("disk", &["ids", "limits", "error"]),
    ("log", &["ids", "limits", "error", "disk"]),
    ("record", &["ids", "limits"]),
    ("state", &["ids", "limits", "record"]),
    ("wait", &["ids", "sync"]),
    ("view", &["ids", "limits", "error", "sync", "disk", "log", "record", "state"]),
    ("engine", &["ids", "limits", "error", "clock", "sync", "disk", "log", "record", "state", "wait", "view"]),
    ("api", &["ids", "limits", "error", "clock", "sync", "engine"]),
    // There with the simulation only: what is put on top of every layer to try it.
    (
        "fuzzing",
        &["ids", "limits", "error", "clock", "sync", "disk", "log", "record", "state", "wait", "view", "engine", "api"],
    ),
];

/// Uses that only some files may make: the path, where it may stand, and what to do instead.
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("std::fs", &["disk/"], "files are reached through the Disk trait"),
    ("rustix::fs", &["disk/"], "files are reached through the Disk trait"),
    ("rustix::mm", &["disk/"], "memory is mapped in the disk layer"),
    ("memmap2", &["disk/map.rs"], "memory is mapped in one file"),
    ("std::time::Instant", &["clock.rs"], "time is read through the Clock trait"),
    ("rustix::time", &["clock.rs"], "time is read through the Clock trait"),
    ("SystemTime::now", &["clock.rs"], "time is read through the Clock trait"),
    ("std::time::SystemTime::now", &["clock.rs"], "time is read through the Clock trait"),
    ("std::thread", &["sync.rs", "sync/"], "threads are reached through `crate::sync`, and belong to the engine"),
    ("crate::sync::Builder", &["engine/"], "threads belong to the engine"),
    ("crossbeam_channel", &["sync.rs", "sync/"], "channels are reached through `crate::sync`"),
    ("parking_lot", &["sync.rs", "log/", "disk/"], "locks are reached through `crate::sync`"),
    (
        "std::sync::atomic",
        &["sync.rs", "sync/", "log/", "disk/", "clock.rs"],
        "atomics are reached through `crate::sync`",
    ),
];

/// Macros that have no place in a library.
const NO_MACROS: &[&str] = &["print", "println", "eprint", "eprintln", "dbg", "todo", "unimplemented"];

/// What is allowed in one place only, each with its reason. An entry that is no longer needed is a complaint, too.
pub(crate) struct Exemptions {
    /// What one file may know beyond its layer.
    pub(crate) imports: &'static [(&'static str, &'static str, &'static str)],
    /// Functions that are longer than allowed, with the length that they may not exceed.
    pub(crate) long_functions: &'static [(&'static str, &'static str, usize, &'static str)],
    /// Files that are longer than allowed, with the length that they may not exceed.
    pub(crate) long_files: &'static [(&'static str, usize, &'static str)],
}

/// What this crate needs: nothing.
pub(crate) const EXEMPTIONS: Exemptions = Exemptions { imports: &[], long_functions: &[], long_files: &[] };

/// The files below `src/`, by their paths from there, with `/`.
pub(crate) type Sources = BTreeMap<String, String>;

/// Everything that is wrong with `sources`.
pub(crate) fn complaints(sources: &Sources, exempt: &Exemptions) -> Vec<String> {
    let reached = reached_files(sources);
    let mut all = unreached(sources, &reached);
    for (path, text) in sources {
        let code = lexer::blank(text);
        all.extend(head(path, text));
        all.extend(unsafe_code(path, &code));
        all.extend(leftovers(path, &code));
        if reached.get(path).copied().unwrap_or(false) {
            continue;
        }
        let shipped = lexer::without_tests(&code);
        all.extend(layering(path, &shipped, exempt));
        all.extend(reserved(path, &shipped));
        all.extend(sizes(path, text, &code, &shipped, exempt));
    }
    all.extend(stale(sources, exempt));
    all
}

/// A file says first what lives in it; for the whole crate the README does.
fn head(path: &str, text: &str) -> Vec<String> {
    match text.lines().next() {
        Some(first) if first.starts_with("//! ") => vec![],
        Some("#![doc = include_str!(\"../README.md\")]") if path == "lib.rs" => vec![],
        _ => vec![format!("{path}:1: begins with no `//!` line that says what lives here and what never may")],
    }
}

fn unsafe_code(path: &str, code: &str) -> Vec<String> {
    if path == "disk/map.rs" {
        return vec![];
    }
    let complain = |line| format!("{path}:{line}: `unsafe` belongs to disk/map.rs");
    lexer::lines_with_word(code, "unsafe").into_iter().map(complain).collect()
}

/// What was forgotten there. Also for files outside `src/`: see [`ignored_tests`].
fn leftovers(path: &str, code: &str) -> Vec<String> {
    let calls = NO_MACROS.iter().flat_map(|name| {
        lexer::lines_with_macro(code, name)
            .into_iter()
            .map(move |line| format!("{path}:{line}: `{name}!` in a library"))
    });
    calls.chain(ignored_tests(path, code)).collect()
}

/// A test that does not run is no test.
pub(crate) fn ignored_tests(path: &str, code: &str) -> Vec<String> {
    let is_ignored = |line: &(usize, &str)| {
        let dense: String = line.1.split_whitespace().collect();
        dense.contains("#[ignore]") || dense.contains("#[ignore=") || dense.contains(",ignore)]")
    };
    let complain = |(line, _)| format!("{path}:{line}: an ignored test");
    (1..).zip(code.lines()).filter(is_ignored).map(complain).collect()
}

/// Imports point down only.
fn layering(path: &str, shipped: &str, exempt: &Exemptions) -> Vec<String> {
    let module = module_of(path);
    let Some(layer) = module.first() else { return vec![] };
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| name == layer) else {
        return vec![format!("{path}:1: the layer `{layer}` is not in the table of layers")];
    };
    let mut found = Vec::new();
    for named in lexer::paths(shipped) {
        let Some(target) = root_name(&module, &named) else { continue };
        let line = named.line;
        let excepted = exempt.imports.iter().any(|(file, known, _)| *file == path && *known == target);
        if target == *layer || allowed.contains(&target.as_str()) || excepted {
            continue;
        }
        if LAYERS.iter().any(|(name, _)| *name == target) {
            found.push(format!("{path}:{line}: `{layer}` must not know `{target}`"));
        } else {
            found.push(format!(
                "{path}:{line}: `{target}` is taken from the crate's root, not from the layer that it lives in"
            ));
        }
    }
    found
}

/// The first name below the crate's root that a path leads to, where it begins with `crate` or climbs up to the root.
fn root_name(module: &[String], named: &NamedPath) -> Option<String> {
    let mut at: Vec<&String> = module.iter().chain(&named.inside).collect();
    let mut parts = named.parts.iter().peekable();
    match parts.peek()?.as_str() {
        "crate" => {
            at.clear();
            parts.next();
        }
        "super" => {
            while parts.next_if(|part| *part == "super").is_some() {
                at.pop();
            }
        }
        _ => return None,
    }
    at.into_iter().chain(parts).next().cloned()
}

/// `log/frame.rs` is `log::frame`, `log/mod.rs` is `log`, `lib.rs` is the root.
fn module_of(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib")) {
        parts.pop();
    }
    parts
}

fn reserved(path: &str, shipped: &str) -> Vec<String> {
    let mut found = BTreeSet::new();
    for NamedPath { line, parts, .. } in lexer::paths(shipped) {
        let full = parts.join("::");
        for (what, places, instead) in RESERVED {
            let is_it = full == *what || full.strip_prefix(what).is_some_and(|rest| rest.starts_with("::"));
            if is_it && !places.iter().any(|place| path.starts_with(place)) {
                found.insert((line, format!("{path}:{line}: `{what}` here: {instead}")));
            }
        }
    }
    found.into_iter().map(|(_, complaint)| complaint).collect()
}

fn sizes(path: &str, text: &str, code: &str, shipped: &str, exempt: &Exemptions) -> Vec<String> {
    let mut found = Vec::new();
    for function in lexer::functions(shipped) {
        let listed = exempt.long_functions.iter().find(|(file, name, ..)| *file == path && *name == function.name);
        let max = listed.map_or(FUNCTION_LINES_MAX, |(_, _, len, _)| *len);
        if function.len > max {
            let (line, name, len) = (function.line, function.name, function.len);
            found.push(format!("{path}:{line}: fn {name} has {len} lines, {max} are allowed"));
        }
    }
    let len = lines_outside_tests(text, code, shipped);
    let max = exempt.long_files.iter().find(|(file, ..)| *file == path).map_or(FILE_LINES_MAX, |(_, len, _)| *len);
    if len > max {
        found.push(format!("{path}:1: {len} lines without tests, {max} are allowed"));
    }
    found
}

/// All lines but those that `without_tests` emptied.
fn lines_outside_tests(text: &str, code: &str, shipped: &str) -> usize {
    let emptied = code.lines().zip(shipped.lines()).filter(|(code, shipped)| code != shipped).count();
    text.lines().count() - emptied
}

/// An exemption that is no longer needed must go.
fn stale(sources: &Sources, exempt: &Exemptions) -> Vec<String> {
    let mut found = Vec::new();
    let shipped = |path: &str| sources.get(path).map(|text| lexer::without_tests(&lexer::blank(text)));
    for (path, name, ..) in exempt.long_functions {
        let functions = shipped(path).map(|code| lexer::functions(&code)).unwrap_or_default();
        if !functions.iter().any(|function| function.name == *name && function.len > FUNCTION_LINES_MAX) {
            found.push(format!("{path}: fn {name} is listed as long and is not"));
        }
    }
    for (path, ..) in exempt.long_files {
        let text = sources.get(*path).map_or("", String::as_str);
        let code = lexer::blank(text);
        if lines_outside_tests(text, &code, &lexer::without_tests(&code)) <= FILE_LINES_MAX {
            found.push(format!("{path}: is listed as long and is not"));
        }
    }
    for (path, known, _) in exempt.imports {
        let module = module_of(path);
        let paths = shipped(path).map(|code| lexer::paths(&code)).unwrap_or_default();
        if !paths.iter().any(|named| root_name(&module, named).as_deref() == Some(*known)) {
            found.push(format!("{path}: may know `{known}` and does not"));
        }
    }
    found
}

/// The files that `mod` lines lead to from `lib.rs`, and whether each is there for tests only.
fn reached_files(sources: &Sources) -> BTreeMap<String, bool> {
    let mut reached = BTreeMap::new();
    let mut left = vec![("lib.rs".to_owned(), false)];
    while let Some((path, is_test)) = left.pop() {
        let Some(text) = sources.get(&path) else { continue };
        let folder = match path.as_str() {
            "lib.rs" => String::new(),
            other => format!("{}/", other.trim_end_matches(".rs").trim_end_matches("/mod")),
        };
        for declared in lexer::declarations(&lexer::blank(text)) {
            for file in [format!("{folder}{}.rs", declared.name), format!("{folder}{}/mod.rs", declared.name)] {
                left.push((file, is_test || declared.is_test));
            }
        }
        reached.insert(path, is_test);
    }
    reached
}

fn unreached(sources: &Sources, reached: &BTreeMap<String, bool>) -> Vec<String> {
    let is_lost = |path: &&String| !reached.contains_key(*path) && !path.starts_with("bin/");
    sources.keys().filter(is_lost).map(|path| format!("{path}: no `mod` leads to this file")).collect()
}
