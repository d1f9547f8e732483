//! Every error of src/error.rs stands in docs/reference/errors.md, with the kind that the code gives it.

use super::read;
use std::collections::BTreeMap;

/// The variants of an enum, in the text of the source.
fn variants(source: &str, name: &str) -> Vec<String> {
    let body = source.split(&format!("pub enum {name} {{\n")).nth(1).expect("the enum is there");
    let body = body.split("\n}\n").next().expect("it ends");
    let lines = body.lines().filter_map(|line| line.strip_prefix("    "));
    let named = lines.filter(|line| line.starts_with(|first: char| first.is_uppercase()));
    named.map(|line| line.split(|c: char| !c.is_alphanumeric()).next().unwrap_or(line).to_owned()).collect()
}

/// What a function of the error says of each variant: its kind, or its scope.
fn answers(source: &str, function: &str, of: &str) -> BTreeMap<String, String> {
    let body = source.split(function).nth(1).expect("the function is there");
    let body = body.split("\n    }\n").next().expect("it ends");
    let mut kinds = BTreeMap::new();
    let mut waiting = Vec::new();
    for word in body.split_whitespace() {
        if let Some(variant) = word.strip_prefix("Self::") {
            waiting.push(variant.trim_end_matches("(_)").to_owned());
        } else if let Some(kind) = word.strip_prefix(of) {
            waiting
                .drain(..)
                .for_each(|variant| drop(kinds.insert(variant, format!("`{}`", kind.trim_end_matches(',')))));
        } else if word == "match" && !waiting.is_empty() {
            waiting.drain(..).for_each(|variant| drop(kinds.insert(variant, "by the system's error".to_owned())));
        }
    }
    kinds
}

#[test]
fn every_error_is_in_the_table() {
    let (source, page) = (read("src/error.rs"), read("docs/reference/errors.md"));
    let rows = |columns: usize| -> Vec<Vec<String>> {
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        page.lines().filter(|line| line.starts_with("| `")).map(cells).filter(|row| row.len() == columns + 2).collect()
    };
    let told = |column: usize| -> BTreeMap<String, String> {
        rows(6).into_iter().map(|row| (row[1].trim_matches('`').to_owned(), row[column].clone())).collect()
    };
    let (told, scopes_told) = (told(2), told(3));
    let kinds = answers(&source, "pub fn kind(&self) -> ErrorKind {", "ErrorKind::");
    let scopes = answers(&source, "pub const fn scope(&self) -> ErrorScope {", "ErrorScope::");
    let variants = variants(&source, "Error");
    assert!(variants.len() > 20, "{variants:?}");
    for variant in &variants {
        assert_eq!(told.get(variant), kinds.get(variant), "the kind of {variant}, on the page and in the code");
        assert_eq!(
            scopes_told.get(variant),
            scopes.get(variant),
            "the scope of {variant}, on the page and in the code"
        );
        assert!(told.contains_key(variant), "{variant} is not on the page");
    }
    assert_eq!(told.len(), variants.len(), "the page has others: {told:?}");
    let of_kinds: Vec<String> = rows(2).into_iter().map(|row| row[1].trim_matches('`').to_owned()).collect();
    assert_eq!(of_kinds, super::errors::variants(&source, "ErrorKind"));
    assert!(rows(6).iter().all(|row| row[4..7].iter().all(|cell| !cell.is_empty())), "an empty cell");
}
