//! The two paths through the engine that a page lists, function by function.

use super::{read, root};
use syn::spanned::Spanned;
use syn::{Block, ImplItem, Item, Signature, TraitItem, Type};

const PAGE: &str = "docs/internals/architecture.md";

/// The functions of a file, each with the type or trait that it belongs to, and its lines.
fn functions(text: &str) -> Vec<(String, usize)> {
    let file = syn::parse_file(text).expect("it is Rust");
    let mut found = Vec::new();
    for item in &file.items {
        match item {
            Item::Fn(function) => found.push((function.sig.ident.to_string(), lines(&function.sig, &function.block))),
            Item::Impl(block) => {
                let Type::Path(owner) = &*block.self_ty else { continue };
                let owner = owner.path.segments.last().expect("a type has a name").ident.to_string();
                found.extend(block.items.iter().filter_map(|item| {
                    let ImplItem::Fn(function) = item else { return None };
                    Some((format!("{owner}::{}", function.sig.ident), lines(&function.sig, &function.block)))
                }));
            }
            Item::Trait(block) => found.extend(block.items.iter().filter_map(|item| {
                let TraitItem::Fn(function) = item else { return None };
                let body = function.default.as_ref()?;
                Some((format!("{}::{}", block.ident, function.sig.ident), lines(&function.sig, body)))
            })),
            _ => {}
        }
    }
    found
}

/// How many lines a function has, without what is said of it.
fn lines(signature: &Signature, body: &Block) -> usize {
    body.span().end().line - signature.span().start().line + 1
}

/// The steps of a section: the function and the file of each.
fn steps(section: &str) -> Vec<(&str, &str)> {
    let numbered = section.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit()));
    numbered
        .map(|line| {
            let mut quoted = line.split('`').skip(1).step_by(2);
            (quoted.next().expect("a step names a function"), quoted.next().expect("a step names a file"))
        })
        .collect()
}

/// How many lines the functions of a section have, as it says and as they have.
fn counted(page: &str, heading: &str) -> (usize, usize) {
    let section = page.split(heading).nth(1).expect("the page has the section");
    let section = section.split("\n#").next().expect("it ends somewhere");
    let said = section.split(" lines").next().and_then(|before| before.rsplit(char::is_whitespace).next());
    let said = said.and_then(|said| said.parse().ok()).expect("it says how many lines they have");
    let steps = steps(section);
    assert!(steps.len() > 5, "{heading}: {steps:?}");
    let real = steps.iter().map(|(function, file)| {
        let all = functions(&read(root().join("src").join(file)));
        let found = all.iter().find(|(name, _)| name == function);
        found.unwrap_or_else(|| panic!("{PAGE} names `{function}`, which is not in {file}")).1
    });
    (said, real.sum())
}

#[test]
fn the_paths_are_those_of_the_code() {
    let page = read(PAGE);
    for heading in ["### A publish, step by step\n", "### A receive, step by step\n"] {
        let (said, real) = counted(&page, heading);
        assert!(real <= said && said < real + 30, "{PAGE}, {heading}: {real} lines, and not {said}");
    }
}

#[test]
fn a_function_belongs_to_its_type() {
    let text = "impl<T> A<T> {\n    fn a(&self) {\n    }\n}\ntrait B {\n    fn b() {}\n}\nfn c() {}\n";
    let found = functions(text);
    let expected = [("A::a", 2), ("B::b", 1), ("c", 1)].map(|(name, lines)| (name.to_owned(), lines));
    assert_eq!(found, expected);
}
