//! What the tokens of a file say without its grammar: words, macros, attributes, and the paths in what macros are given.
//! Never here: what is allowed.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};
use syn::ext::IdentExt;

/// A path with the line on which it begins.
pub(crate) type LinedPath = (usize, Vec<String>);

/// Calls `act` with the tokens of each group, the outermost first.
fn each_level(stream: TokenStream, act: &mut impl FnMut(&[TokenTree])) {
    let level: Vec<TokenTree> = stream.into_iter().collect();
    act(&level);
    for tree in level {
        if let TokenTree::Group(group) = tree {
            each_level(group.stream(), act);
        }
    }
}

fn is_punct(tree: Option<&TokenTree>, sign: char) -> bool {
    matches!(tree, Some(TokenTree::Punct(punct)) if punct.as_char() == sign)
}

fn ident(tree: Option<&TokenTree>) -> Option<&Ident> {
    match tree {
        Some(TokenTree::Ident(ident)) => Some(ident),
        _ => None,
    }
}

fn group(tree: Option<&TokenTree>, delimiter: Delimiter) -> Option<&Group> {
    match tree {
        Some(TokenTree::Group(group)) if group.delimiter() == delimiter => Some(group),
        _ => None,
    }
}

fn line_of(tree: &TokenTree) -> usize {
    tree.span().start().line
}

/// The lines on which a keyword stands.
pub(crate) fn lines_with_keyword(stream: TokenStream, keyword: &str) -> Vec<usize> {
    let mut found = Vec::new();
    each_level(stream, &mut |level| {
        found.extend(level.iter().filter(|tree| ident(Some(tree)).is_some_and(|it| it == keyword)).map(line_of));
    });
    found
}

/// The lines on which a macro is called.
pub(crate) fn lines_with_macro(stream: TokenStream, name: &str) -> Vec<usize> {
    let mut found = Vec::new();
    each_level(stream, &mut |level| {
        let calls = level.windows(3).filter(|three| {
            let is_it = ident(three.first()).is_some_and(|it| it == name);
            is_it && is_punct(three.get(1), '!') && matches!(three[2], TokenTree::Group(_))
        });
        found.extend(calls.map(|three| line_of(&three[0])));
    });
    found
}

/// The lines of attributes that keep a test from running.
pub(crate) fn lines_with_ignore(stream: TokenStream) -> Vec<usize> {
    let mut found = Vec::new();
    each_level(stream, &mut |level| {
        for (at, tree) in level.iter().enumerate() {
            let attribute = group(level.get(at + 1), Delimiter::Bracket);
            if is_punct(Some(tree), '#') && attribute.is_some_and(|it| is_ignore(it.stream())) {
                found.push(line_of(tree));
            }
        }
    });
    found
}

/// `ignore`, `ignore = "…"`, and `cfg_attr(…, ignore)` however deep.
fn is_ignore(attribute: TokenStream) -> bool {
    let trees: Vec<TokenTree> = attribute.into_iter().collect();
    let Some(name) = ident(trees.first()) else { return false };
    if name == "cfg_attr" {
        let Some(given) = group(trees.get(1), Delimiter::Parenthesis) else { return false };
        let given: Vec<TokenTree> = given.stream().into_iter().collect();
        let attributes = given.split(|tree| is_punct(Some(tree), ',')).skip(1);
        return attributes.into_iter().any(|attribute| is_ignore(attribute.iter().cloned().collect()));
    }
    name == "ignore"
}

/// All paths of at least two parts, and all that a `use` brings in.
pub(crate) fn paths(stream: TokenStream) -> Vec<LinedPath> {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < trees.len() {
        if let TokenTree::Group(group) = &trees[at] {
            found.extend(paths(group.stream()));
        }
        if ident(trees.get(at)).is_none() {
            at += 1;
            continue;
        }
        let is_use = at > 0 && ident(trees.get(at - 1)).is_some_and(|before| before == "use");
        let mut read = Vec::new();
        at = read_path(&trees, at, &[], &mut read);
        found.extend(read.into_iter().filter(|(_, parts)| is_use || parts.len() > 1));
    }
    found
}

/// Reads the path (or tree of them) that begins with the name at `at`, and returns where it ends.
fn read_path(trees: &[TokenTree], mut at: usize, prefix: &[String], found: &mut Vec<LinedPath>) -> usize {
    let line = line_of(&trees[at]);
    let mut parts = prefix.to_vec();
    loop {
        if let Some(group) = group(trees.get(at), Delimiter::Brace) {
            let inner: Vec<TokenTree> = group.stream().into_iter().collect();
            for branch in inner.split(|tree| is_punct(Some(tree), ',')).filter(|branch| !branch.is_empty()) {
                read_path(branch, 0, &parts, found);
            }
            return at + 1;
        }
        match trees.get(at) {
            Some(TokenTree::Ident(name)) => parts.push(name.unraw().to_string()),
            Some(TokenTree::Punct(sign)) if sign.as_char() == '*' => parts.push("*".to_owned()),
            _ => break,
        }
        at += 1;
        let goes_on = is_punct(trees.get(at), ':') && is_punct(trees.get(at + 1), ':');
        let leads_on = ident(trees.get(at + 2)).is_some()
            || is_punct(trees.get(at + 2), '*')
            || group(trees.get(at + 2), Delimiter::Brace).is_some();
        if !(goes_on && leads_on) {
            break;
        }
        at += 2;
    }
    found.push((line, parts));
    at.max(1)
}

/// All functions with a body: name, first line, last line.
pub(crate) fn functions(stream: TokenStream) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    each_level(stream, &mut |level| {
        for (at, tree) in level.iter().enumerate() {
            let Some(name) = ident(level.get(at + 1)) else { continue };
            if ident(Some(tree)).is_none_or(|it| it != "fn") {
                continue;
            }
            let rest = level[at..].iter().take_while(|tree| !is_punct(Some(tree), ';'));
            if let Some(body) = rest.into_iter().find_map(|tree| group(Some(tree), Delimiter::Brace)) {
                found.push((name.to_string(), line_of(tree), body.span_close().end().line));
            }
        }
    });
    found
}
