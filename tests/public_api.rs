//! The public API, as one text that is kept: a change of it is seen in review, and none happens by mistake.
//!
//! `MILLPOND_WRITE_API=1 cargo test --test public_api` writes the text anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use quote::ToTokens;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::{Attribute, Fields, ImplItem, Item, Type, UseTree, Visibility};

/// What stands with the simulation alone is no part of it.
fn is_simulated(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && {
            let condition = attribute.meta.to_token_stream().to_string();
            condition.contains("\"simulation\"") && !condition.contains("not")
                || condition.contains("test")
                || condition.contains("millpond_shuttle")
        }
    })
}

/// The features that an item needs, as a mark before it.
fn features(attributes: &[Attribute]) -> String {
    let conditions = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    conditions.map(|attribute| format!("{} ", text(&attribute.to_token_stream()))).collect()
}

/// Tokens as people write them.
fn text(tokens: &impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string();
    let tight = [
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        (" ,", ","),
        (" ;", ";"),
        (" :", ":"),
        (":: ", "::"),
        (" < ", "<"),
        ("< ", "<"),
        (" >", ">"),
        ("& ", "&"),
        (" .", "."),
        ("# [", "#["),
        ("[ ", "["),
        (" ]", "]"),
        ("::<", "<"),
        (":'", ": '"),
    ];
    for (from, to) in tight {
        text = text.replace(from, to);
    }
    text.replace(",)", ")").replace("->", " -> ").replace("  ", " ").replace(":Into", ": Into")
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn names(tree: &UseTree, found: &mut BTreeSet<String>) {
    match tree {
        UseTree::Path(path) => names(&path.tree, found),
        UseTree::Name(name) => {
            found.insert(name.ident.to_string());
        }
        UseTree::Rename(rename) => {
            found.insert(rename.rename.to_string());
        }
        UseTree::Group(group) => group.items.iter().for_each(|item| names(item, found)),
        UseTree::Glob(_) => panic!("a glob at the root of the crate"),
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|suffix| suffix == "rs") {
            found.push(path);
        }
    }
}

/// The name of the type that an implementation is for.
fn type_name(of: &Type) -> Option<String> {
    match of {
        Type::Path(path) => Some(path.path.segments.last()?.ident.to_string()),
        _ => None,
    }
}

fn fields(fields: &Fields) -> String {
    let shown = fields.iter().filter(|field| is_public(&field.vis)).map(|field| {
        let name = field.ident.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        format!("{name}{}", text(&field.ty))
    });
    let shown: Vec<String> = shown.collect();
    if shown.is_empty() { String::new() } else { format!(" {{ {} }}", shown.join(", ")) }
}

type Api = BTreeMap<String, BTreeSet<String>>;

/// Takes in what an item says of the exported names.
fn item(item: &Item, exported: &BTreeSet<String>, api: &mut Api) {
    let mut say = |name: &str, line: String| {
        api.entry(name.to_owned()).or_default().insert(line);
    };
    match item {
        Item::Struct(of) if exported.contains(&of.ident.to_string()) && !is_simulated(&of.attrs) => {
            say(&of.ident.to_string(), format!(" struct{}{}", text(&of.generics), fields(&of.fields)));
        }
        Item::Enum(of) if exported.contains(&of.ident.to_string()) && !is_simulated(&of.attrs) => {
            let name = of.ident.to_string();
            say(&name, " enum".to_owned());
            for (nth, variant) in of.variants.iter().enumerate() {
                let of_variant: Vec<String> = variant
                    .fields
                    .iter()
                    .map(|field| match &field.ident {
                        Some(name) => format!("{name}: {}", text(&field.ty)),
                        None => text(&field.ty),
                    })
                    .collect();
                say(&name, format!(" variant {nth:02} {}({})", variant.ident, of_variant.join(", ")).replace("()", ""));
            }
        }
        Item::Type(of) if exported.contains(&of.ident.to_string()) => {
            say(&of.ident.to_string(), format!(" type {} = {}", text(&of.generics), text(&of.ty)));
        }
        Item::Trait(of) if exported.contains(&of.ident.to_string()) && !is_simulated(&of.attrs) => {
            say(&of.ident.to_string(), " trait".to_owned());
        }
        Item::Impl(of) if !is_simulated(&of.attrs) => {
            let Some(name) = type_name(&of.self_ty).filter(|name| exported.contains(name)) else { return };
            if let Some((_, implemented, _)) = &of.trait_ {
                say(&name, format!("{}impl {} for {}", features(&of.attrs), text(implemented), text(&of.self_ty)));
                return;
            }
            for inner in &of.items {
                match inner {
                    ImplItem::Fn(function) if is_public(&function.vis) && !is_simulated(&function.attrs) => {
                        say(&name, format!("{}{}", features(&function.attrs), text(&function.sig)));
                    }
                    ImplItem::Const(constant) if is_public(&constant.vis) => {
                        say(&name, format!("const {}: {}", constant.ident, text(&constant.ty)));
                    }
                    _ => {}
                }
            }
        }
        Item::Macro(of) => {
            let tokens = of.mac.tokens.to_string();
            let words: BTreeSet<&str> = tokens.split(|char: char| !char.is_alphanumeric() && char != '_').collect();
            exported.iter().filter(|name| words.contains(name.as_str())).for_each(|name| {
                say(name, format!(" also of the macro {}", text(&of.mac.path)));
            });
        }
        _ => {}
    }
}

#[test]
fn the_public_api_is_what_is_kept() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let parsed = |path: &Path| syn::parse_file(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut exported = BTreeSet::new();
    for found in &parsed(&root.join("src/lib.rs")).items {
        match found {
            Item::Use(used) if is_public(&used.vis) && !is_simulated(&used.attrs) => names(&used.tree, &mut exported),
            _ => {}
        }
    }
    let (mut files, mut api) = (Vec::new(), Api::new());
    sources(&root.join("src"), &mut files);
    files.retain(|path| !path.starts_with(root.join("src/fuzzing")) && !path.ends_with("tests.rs"));
    for path in files {
        parsed(&path).items.iter().for_each(|found| item(found, &exported, &mut api));
    }
    for found in &parsed(&root.join("src/limits.rs")).items {
        if let Item::Const(constant) = found
            && is_public(&constant.vis)
        {
            let line = format!("const {}: {} = {}", constant.ident, text(&constant.ty), text(&constant.expr));
            api.entry("limits".to_owned()).or_default().insert(line);
        }
    }
    let lost: Vec<_> = exported.iter().filter(|name| !api.contains_key(*name)).collect();
    assert!(lost.is_empty() && exported.len() > 80, "not found in the sources: {lost:?}");
    let mut written = String::new();
    for (name, lines) in &api {
        written += &format!("{name}\n");
        lines.iter().for_each(|line| written += &format!("    {}\n", line.trim()));
    }
    let path = root.join("tests/public_api.txt");
    if std::env::var_os("MILLPOND_WRITE_API").is_some() {
        std::fs::write(&path, &written).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let (now, before): (BTreeSet<&str>, BTreeSet<&str>) = (written.lines().collect(), kept.lines().collect());
    let (new, gone): (Vec<_>, Vec<_>) = (now.difference(&before).collect(), before.difference(&now).collect());
    assert!(
        written == kept,
        "the public API has changed: new {new:#?}, gone {gone:#?}; if that is meant, write it anew with MILLPOND_WRITE_API=1"
    );
}
