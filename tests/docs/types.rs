//! The name of a type is given once in the crate, so that a name in a sentence or a search means one thing.

use super::{read, root};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The types that a source declares, its tests left out. An alias counts where it is no part of a trait or an `impl`.
fn declared(text: &str) -> Vec<&str> {
    let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let mut found = Vec::new();
    for line in shipped.lines() {
        let code = line.trim_start();
        let code = match code.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => rest.split_once(") ").map_or("", |(_, rest)| rest),
            Some(rest) => rest.trim_start(),
            None => code,
        };
        let Some((keyword, rest)) = code.split_once(' ') else { continue };
        let is_type =
            ["struct", "enum", "trait", "union"].contains(&keyword) || keyword == "type" && !line.starts_with(' ');
        let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        if is_type && name.starts_with(|first: char| first.is_uppercase()) {
            found.push(name);
        }
    }
    found
}

/// What is wrong with the names of these sources.
fn complaints(sources: &[(String, String)]) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (path, text) in sources {
        declared(text).into_iter().for_each(|name| places.entry(name).or_default().push(path));
    }
    let doubled = places.iter().filter(|(_, files)| files.len() > 1);
    doubled.map(|(name, files)| format!("{name} is declared in {}", files.join(" and "))).collect()
}

#[test]
fn no_type_name_is_declared_twice() {
    let mut sources = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("it can be listed") {
            let path = entry.expect("it can be listed").path();
            match (path.is_dir(), path.file_stem().is_some_and(|stem| stem == "tests")) {
                (_, true) => {}
                (true, _) => folders.push(path),
                (false, _) => sources.push((path.to_string_lossy().into_owned(), read(&path))),
            }
        }
    }
    assert!(sources.iter().map(|(_, text)| declared(text).len()).sum::<usize>() > 300, "types are not seen");
    let found = complaints(&sources);
    assert!(found.is_empty(), "names of types:\n{}", found.join("\n"));
}

#[test]
fn a_name_that_is_given_twice_is_found() {
    let sources = |other: &str| -> Vec<(String, String)> {
        let one = "pub(crate) struct Run {\nimpl X {\n    type Item = u8;\n";
        [("a.rs", one), ("b.rs", other)].map(|(path, text)| (path.to_owned(), text.to_owned())).into()
    };
    assert_eq!(complaints(&sources("enum Run<T> {")), ["Run is declared in a.rs and b.rs"]);
    assert_eq!(complaints(&sources("    type Item = u8;\n#[cfg(test)]\nmod tests {\nstruct Run;")), [""; 0]);
    assert_eq!(complaints(&sources("pub type Walk = u8;")), [""; 0]);
}
