//! Every link between pages leads to a page, or to a heading of one, that is there.

use super::{pages, read, root};
use std::path::{Path, PathBuf};

/// The targets of the links of a page, code left out.
fn links(page: &str) -> Vec<&str> {
    let prose = page.split("```").step_by(2);
    prose
        .flat_map(|text| text.split("](").skip(1))
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .filter(|target| !target.contains("://"))
        .collect()
}

/// The names by which a page's headings and anchors can be linked.
fn anchors(page: &str) -> Vec<String> {
    let slug = |title: &str| -> String {
        let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
    };
    let headings = page.lines().filter_map(|line| line.strip_prefix('#'));
    let slugs = headings.map(|line| slug(line.trim_start_matches('#').trim()));
    let named = page.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next());
    slugs.chain(named.map(str::to_owned)).collect()
}

/// What is wrong with the links of the page at `path`.
fn complaints(path: &Path, page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for link in links(page) {
        let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
        let target = if file.is_empty() { path.to_owned() } else { path.parent().unwrap_or(Path::new("")).join(file) };
        let is_there = match anchor {
            Some(anchor) if target == path => anchors(page).iter().any(|name| name == anchor),
            Some(anchor) if target.is_file() => anchors(&read(&target)).iter().any(|name| name == anchor),
            Some(_) => false,
            None => target.exists(),
        };
        if !is_there {
            found.push(format!("{}: {link}", path.display()));
        }
    }
    found
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let more = ["README.md", "fuzz/README.md"].map(|path| (root().join(path), read(path)));
    let all: Vec<(PathBuf, String)> = pages().into_iter().chain(more).collect();
    let broken: Vec<String> = all.iter().flat_map(|(path, page)| complaints(path, page)).collect();
    assert!(broken.is_empty(), "these links lead nowhere:\n{}", broken.join("\n"));
    let count: usize = all.iter().map(|(_, page)| links(page).len()).sum();
    assert!(count > 50, "only {count} links were found");
}

#[test]
fn a_link_to_nothing_is_found() {
    let path = root().join("docs/page.md");
    let page = "# One two\n[a](#one-two) [b](#three) [c](durability.md) [d](nothing.md) [e](durability.md#nothing)\n";
    let found = complaints(&path, page);
    let of = |link: &str| format!("{}: {link}", path.display());
    assert_eq!(found, [of("#three"), of("nothing.md"), of("durability.md#nothing")]);
}
