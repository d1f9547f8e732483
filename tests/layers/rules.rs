//! The rules of the house: which layer knows which, what may be used where, what a `match` must name, how long things may
//! be.
//!
//! Each rule takes all of `src/` and returns its complaints. Never here: reading files.

use crate::arms::What;
use crate::exemptions::{Exemptions, Leave};
use crate::source::{Function, NamedPath, Source};
use crate::tokens;
use proc_macro2::TokenStream;
use std::collections::{BTreeMap, BTreeSet};

/// The longest function, in lines.
const FUNCTION_LINES_MAX: usize = 70;
/// The longest file, in lines that are not tests.
const FILE_LINES_MAX: usize = 450;

/// Where walls stand: in the crate's root, and within some layers.
const WALLS: &[Walls] = &[
    Walls { within: &[], rooms: LAYERS },
    Walls { within: &["log"], rooms: LOG_ROOMS },
    Walls { within: &["engine"], rooms: ENGINE_ROOMS },
];

/// The modules of one module, and what each of them may know besides itself.
struct Walls {
    within: &'static [&'static str],
    rooms: &'static [(&'static str, &'static [&'static str])],
}

/// The layers, from the bottom up; imports point down only.
const LAYERS: &[(&str, &[&str])] = &[
    ("ids", &["limits", "error"]),
    ("limits", &["ids", "error"]),
    ("error", &["ids", "limits"]),
    ("clock", &["ids", "limits", "error"]),
    ("sync", &[]),
    ("disk", &["ids", "limits", "error"]),
    ("index", &["ids", "sync"]),
    ("log", &["ids", "limits", "error", "disk"]),
    ("record", &["ids", "limits"]),
    ("state", &["ids", "limits", "record"]),
    ("wait", &["ids", "sync"]),
    ("view", &["ids", "limits", "error", "sync", "disk", "log", "record", "state"]),
    ("engine", &["ids", "limits", "error", "clock", "sync", "disk", "log", "record", "state", "wait", "view", "index"]),
    ("api", &["ids", "limits", "error", "clock", "sync", "engine"]),
    // There with the features for tests only.
    ("testing", &["ids", "error", "clock", "disk", "api"]),
    // There with the simulation only: what is put on top of every layer to try it.
    (
        "fuzzing",
        &["ids", "limits", "error", "clock", "sync", "disk", "log", "record", "state", "wait", "view", "engine", "api"],
    ),
];

/// What is within the log: what only reads can be had without what writes, and what writes comes from a recovery.
const LOG_ROOMS: &[(&str, &[&str])] = &[
    ("format", &["error"]),
    ("error", &["format"]),
    ("read", &["error", "format"]),
    ("write", &["error", "format", "read"]),
    ("recover", &["error", "format", "read", "write"]),
    ("fuzzing", &["error", "format", "read", "write", "recover"]),
];

/// What is within the engine: what hands out knows nothing of what publishes, and nothing but opening and threads knows maintenance.
const ENGINE_ROOMS: &[(&str, &[&str])] = &[
    ("health", &[]),
    ("refusal", &[]),
    ("room", &[]),
    ("rates", &[]),
    ("core", &["rates", "refusal", "room"]),
    ("dedup", &[]),
    ("outgoing", &["core", "dedup"]),
    ("reserve", &["core"]),
    ("stats", &["core"]),
    ("deliver", &["core", "refusal", "outgoing"]),
    ("topics", &["core", "deliver"]),
    ("seek", &["deliver", "topics"]),
    ("schedule", &["core", "deliver"]),
    ("follow", &["core", "deliver", "topics"]),
    ("stream", &["core", "deliver", "follow", "outgoing", "refusal"]),
    ("write", &["core", "deliver", "stream", "outgoing"]),
    ("maintenance", &["core", "reserve"]),
    ("threads", &["maintenance"]),
    ("observer", &["open"]),
    ("repair", &["open", "core"]),
    ("open", &["core", "rates", "dedup", "health", "reserve", "schedule", "stream", "write", "maintenance"]),
];

/// Enums of which every `match` names all variants, so that a new one is decided everywhere.
const NAMED_IN_FULL: &[&str] = &["Command", "Decision", "Record", "Room", "Wakes"];

/// Of these, too, but what one place has no answer for it may hand on as it is, as `?` does.
const NAMED_OR_HANDED_ON: &[&str] = &["AppendError", "Error", "Refusal", "Rejection"];

/// Uses that only some files may make: the path, where it may stand, and what to do instead.
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("std::fs", &["disk/", "index/"], "files are reached through the Disk trait"),
    ("rustix::fs", &["disk/"], "files are reached through the Disk trait"),
    ("rustix::mm", &["disk/"], "memory is mapped in the disk layer"),
    ("memmap2", &["disk/map.rs"], "memory is mapped in one file"),
    ("std::time::Instant", &["clock.rs"], "time is read through the Clock trait"),
    ("rustix::time", &["clock.rs"], "time is read through the Clock trait"),
    ("SystemTime::now", &["clock.rs"], "time is read through the Clock trait"),
    ("std::time::SystemTime::now", &["clock.rs"], "time is read through the Clock trait"),
    ("std::thread", &["sync.rs", "sync/"], "threads are reached through `crate::sync`, and belong to the engine"),
    ("crate::sync::Builder", &["engine/", "index/sled.rs"], "threads belong to the engine"),
    ("crossbeam_channel", &["sync.rs", "sync/"], "channels are reached through `crate::sync`"),
    ("parking_lot", &["sync.rs", "log/", "disk/"], "locks are reached through `crate::sync`"),
    (
        "std::sync::atomic",
        &["sync.rs", "sync/", "log/", "disk/", "clock.rs"],
        "atomics are reached through `crate::sync`",
    ),
];

/// Macros that only some files may call: the name, where, and what to do instead.
const RESERVED_MACROS: &[(&str, &[&str], &str)] = &[
    ("print", &[], NO_OUTPUT),
    ("println", &[], NO_OUTPUT),
    ("eprint", &[], NO_OUTPUT),
    ("eprintln", &[], NO_OUTPUT),
    ("dbg", &[], NO_OUTPUT),
    ("todo", &[], "what is not done is not called"),
    ("unimplemented", &[], "what is not done is not called"),
    ("proptest", &["properties.rs"], "`properties!` keeps cases that fail below `tests/`"),
];

const NO_OUTPUT: &str = "a library writes to nobody's terminal";

/// The files below `src/`, by their paths from there, with `/`.
pub(crate) type Sources = BTreeMap<String, String>;

/// The same, taken apart.
type Files = BTreeMap<String, Source>;

/// Everything that is wrong with `sources`.
pub(crate) fn complaints(sources: &Sources, exempt: &Exemptions) -> Vec<String> {
    let (files, mut all) = read(sources);
    let reached = reached_files(&files);
    all.extend(unreached(&files, &reached));
    let mut leave = Leave::new(exempt);
    for (path, file) in &files {
        all.extend(head(path, &file.text));
        all.extend(unsafe_code(path, file));
        all.extend(leftovers(path, file));
        if reached.get(path).copied().unwrap_or(false) {
            continue;
        }
        all.extend(layering(path, &files, &mut leave));
        all.extend(reserved(path, file));
        all.extend(catch_alls(path, file, &mut leave));
        all.extend(sizes(path, file, &mut leave));
    }
    all.extend(leave.unused());
    all
}

/// The files that are Rust, and complaints about the others.
fn read(sources: &Sources) -> (Files, Vec<String>) {
    let (mut files, mut complaints) = (Files::new(), Vec::new());
    for (path, text) in sources {
        match Source::read(text) {
            Ok(file) => drop(files.insert(path.clone(), file)),
            Err(error) => complaints.push(format!("{path}:{}: cannot be read: {error}", error.span().start().line)),
        }
    }
    (files, complaints)
}

/// What the tables name and the sources do not have: a rule about it watches nothing.
pub(crate) fn strangers(sources: &Sources) -> Vec<String> {
    let (files, mut found) = read(sources);
    for Walls { within, rooms } in WALLS {
        for (room, _) in *rooms {
            let module = [*within, &[*room]].concat();
            if file_of(&module, &files).is_none() {
                found.push(format!("the table has `{}`, which is not there", module.join("/")));
            }
        }
    }
    let enums: BTreeSet<&str> = files.values().flat_map(|file| &file.enums).map(String::as_str).collect();
    let named = NAMED_IN_FULL.iter().chain(NAMED_OR_HANDED_ON);
    found.extend(named.filter(|name| !enums.contains(*name)).map(|name| format!("no enum is named `{name}`")));
    found
}

/// The file of a module.
fn file_of<'a>(module: &[&str], files: &'a Files) -> Option<&'a Source> {
    let path = module.join("/");
    files.get(&format!("{path}.rs")).or_else(|| files.get(&format!("{path}/mod.rs")))
}

/// A file says first what lives in it; for the whole crate the README does.
fn head(path: &str, text: &str) -> Vec<String> {
    match text.lines().next() {
        Some(first) if first.starts_with("//! ") => vec![],
        Some("#![doc = include_str!(\"../README.md\")]") if path == "lib.rs" => vec![],
        _ => vec![format!("{path}:1: begins with no `//!` line that says what lives here and what never may")],
    }
}

fn unsafe_code(path: &str, file: &Source) -> Vec<String> {
    if path == "disk/map.rs" {
        return vec![];
    }
    let complain = |line| format!("{path}:{line}: `unsafe` belongs to disk/map.rs");
    tokens::lines_with_keyword(file.tokens.clone(), "unsafe").into_iter().map(complain).collect()
}

/// What was forgotten there. Also for files outside `src/`: see [`ignored_tests`].
fn leftovers(path: &str, file: &Source) -> Vec<String> {
    let calls =
        RESERVED_MACROS.iter().filter(|(_, places, _)| !places.contains(&path)).flat_map(|(name, _, instead)| {
            let complain = move |line| format!("{path}:{line}: `{name}!` in a library: {instead}");
            tokens::lines_with_macro(file.tokens.clone(), name).into_iter().map(complain)
        });
    calls.chain(ignored_tests(path, file.tokens.clone())).collect()
}

/// A test that does not run is no test.
pub(crate) fn ignored_tests(path: &str, file: TokenStream) -> Vec<String> {
    tokens::lines_with_ignore(file).into_iter().map(|line| format!("{path}:{line}: an ignored test")).collect()
}

/// Imports point down only, in the crate's root and within each module that has walls.
fn layering(path: &str, files: &Files, leave: &mut Leave<'_>) -> Vec<String> {
    let module = module_of(path);
    let named: Vec<(usize, Vec<String>)> =
        files[path].paths.iter().filter_map(|named| Some((named.line, absolute(&module, named, files)?))).collect();
    let mut found = Vec::new();
    for walls in WALLS {
        let Some(room) = walls.room(&module) else { continue };
        let room_path = walls.path(room);
        let Some((_, allowed)) = walls.rooms.iter().find(|(name, _)| name == room) else {
            found.push(format!("{path}:1: the layer `{room_path}` is not in the table of layers"));
            continue;
        };
        for (line, target) in &named {
            let Some(target) = walls.room(target) else { continue };
            if target == room || allowed.contains(&target.as_str()) {
                continue;
            }
            let target_path = walls.path(target);
            let is_room = walls.rooms.iter().any(|(name, _)| name == target);
            // What is no room is defined in the module itself; the crate's root defines nothing.
            if !is_room && target != "*" && !walls.within.is_empty() || leave.may_know(path, &target_path) {
                continue;
            }
            found.push(if is_room {
                format!("{path}:{line}: `{room_path}` must not know `{target_path}`")
            } else {
                let whose = if walls.within.is_empty() { "the crate's root" } else { "the module around" };
                format!("{path}:{line}: `{target}` is taken from {whose}, not from the layer that it lives in")
            });
        }
    }
    found
}

impl Walls {
    /// The room within these walls that a path leads into.
    fn room<'a>(&self, path: &'a [String]) -> Option<&'a String> {
        let is_within = path.iter().zip(self.within).filter(|(part, wall)| part == *wall).count() == self.within.len();
        path.get(self.within.len()).filter(|_| is_within)
    }

    fn path(&self, room: &str) -> String {
        [self.within, &[room]].concat().join("/")
    }
}

/// A path from the crate's root, where it leads to this crate. What a module with walls only passes on is followed to
/// the room that it lives in.
fn absolute(module: &[String], named: &NamedPath, files: &Files) -> Option<Vec<String>> {
    let full = from_root(module, named, files, IMPORTS_FOLLOWED_MAX)?;
    for walls in WALLS.iter().filter(|walls| !walls.within.is_empty() && walls.room(module).is_some()) {
        let Some(name) = walls.room(&full) else { continue };
        let Some(import) = file_of(walls.within, files).and_then(|file| file.import(name)) else { continue };
        let owner: Vec<String> = walls.within.iter().map(|&part| part.to_owned()).collect();
        let mut target = from_root(&owner, import, files, IMPORTS_FOLLOWED_MAX)
            .unwrap_or_else(|| owner.iter().chain(&import.parts).cloned().collect());
        target.extend_from_slice(&full[walls.within.len() + 1..]);
        return Some(target);
    }
    Some(full)
}

/// How many imports of a file may stand upon each other; one that stands upon itself leads nowhere.
const IMPORTS_FOLLOWED_MAX: usize = 4;

/// A path from the crate's root, where it begins there, or in the module that names it, or with what its file imports
/// from there.
fn from_root(module: &[String], named: &NamedPath, files: &Files, left: usize) -> Option<Vec<String>> {
    let mut at: Vec<String> = module.iter().chain(&named.inside).cloned().collect();
    let mut parts = named.parts.iter().peekable();
    match parts.peek()?.as_str() {
        "crate" => {
            at.clear();
            parts.next();
        }
        "self" | "super" => {
            while let Some(part) = parts.next_if(|part| matches!(part.as_str(), "self" | "super")) {
                if part == "super" {
                    at.pop();
                }
            }
        }
        first => {
            let module_names: Vec<&str> = module.iter().map(String::as_str).collect();
            let import = file_of(&module_names, files)?.import(first)?;
            at = from_root(module, import, files, left.checked_sub(1)?)?;
            parts.next();
        }
    }
    at.extend(parts.cloned());
    Some(at)
}

/// `log/frame.rs` is `log::frame`, `log/mod.rs` is `log`, `lib.rs` is the root.
fn module_of(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib")) {
        parts.pop();
    }
    parts
}

fn reserved(path: &str, file: &Source) -> Vec<String> {
    let mut found = BTreeSet::new();
    for NamedPath { line, parts, .. } in &file.paths {
        let full = parts.join("::");
        for (what, places, instead) in RESERVED {
            let is_it = full.strip_prefix(what).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
            let brings_it_in = full.strip_suffix('*').is_some_and(|all| what.starts_with(all));
            if (is_it || brings_it_in) && !places.iter().any(|place| path.starts_with(place)) {
                found.insert((*line, format!("{path}:{line}: `{what}` here: {instead}")));
            }
        }
    }
    found.into_iter().map(|(_, complaint)| complaint).collect()
}

/// Where one arm names a variant of an enum that is to be named in full, no other catches the rest of it.
fn catch_alls(path: &str, file: &Source, leave: &mut Leave<'_>) -> Vec<String> {
    let mut found = variants_alone(path, file);
    for one in &file.matches {
        for catch_all in &one.seen {
            let tables: &[&[&str]] = match catch_all.what {
                What::VariantOf(_) => continue,
                What::Caught => &[NAMED_IN_FULL, NAMED_OR_HANDED_ON],
                What::HandedOn => &[NAMED_IN_FULL],
            };
            let is_caught = |place: &str| {
                place.strip_prefix(&catch_all.place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            let caught = one.seen.iter().filter(|seen| is_caught(&seen.place)).find_map(|seen| {
                let What::VariantOf(name) = &seen.what else { return None };
                let name = file.import(name).and_then(|import| import.parts.last()).unwrap_or(name).as_str();
                tables.iter().any(|table| table.contains(&name)).then_some(name)
            });
            let Some(name) = caught else { continue };
            if !leave.may_catch_all(path, &one.function) {
                let line = catch_all.line;
                found.push(format!("{path}:{line}: this arm catches the rest of `{name}`: name its variants"));
            }
        }
    }
    found
}

/// Variants that a `use` brings in without their enum: nobody could tell which enum a `match` is about.
fn variants_alone(path: &str, file: &Source) -> Vec<String> {
    let is_named =
        |part: &&String| [NAMED_IN_FULL, NAMED_OR_HANDED_ON].iter().any(|table| table.contains(&part.as_str()));
    let imports = file.paths.iter().filter(|named| named.imported_as.is_some());
    let alone = imports.filter_map(|named| Some((named.line, named.parts.iter().rev().skip(1).find(is_named)?)));
    alone.map(|(line, name)| format!("{path}:{line}: a variant of `{name}` is to be named with it")).collect()
}

fn sizes(path: &str, file: &Source, leave: &mut Leave<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for Function { name, line, len } in file.functions.iter().filter(|it| it.len > FUNCTION_LINES_MAX) {
        let max = leave.function_lines(path, name).unwrap_or(FUNCTION_LINES_MAX);
        if *len > max {
            found.push(format!("{path}:{line}: fn {name} has {len} lines, {max} are allowed"));
        }
    }
    let len = file.lines_outside_tests();
    if len > FILE_LINES_MAX {
        let max = leave.file_lines(path).unwrap_or(FILE_LINES_MAX);
        if len > max {
            found.push(format!("{path}:1: {len} lines without tests, {max} are allowed"));
        }
    }
    found
}

/// The files that `mod` lines lead to from `lib.rs`, and whether each is there for tests only.
fn reached_files(files: &Files) -> BTreeMap<String, bool> {
    let mut reached = BTreeMap::new();
    let mut left = vec![("lib.rs".to_owned(), false)];
    while let Some((path, is_test)) = left.pop() {
        let Some(file) = files.get(&path) else { continue };
        for declared in &file.declarations {
            let mut module = module_of(&path);
            module.extend(declared.inside.iter().chain([&declared.name]).cloned());
            for end in [".rs", "/mod.rs"] {
                left.push((format!("{}{end}", module.join("/")), is_test || declared.is_test));
            }
        }
        reached.insert(path, is_test);
    }
    reached
}

fn unreached(files: &Files, reached: &BTreeMap<String, bool>) -> Vec<String> {
    let is_lost = |path: &&String| !reached.contains_key(*path) && !path.starts_with("bin/");
    files.keys().filter(is_lost).map(|path| format!("{path}: no `mod` leads to this file")).collect()
}
