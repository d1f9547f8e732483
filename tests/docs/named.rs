//! Every test that a page names is there: in a page a test is `file.rs :: name`.

use super::{pages, root};

/// The names of the tests that a page cites, with their files. A name may go over the end of a line.
fn cited(page: &str) -> Vec<(String, String)> {
    let spans = page.split('`').skip(1).step_by(2).map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "));
    spans
        .filter(|span| span.contains(".rs :: "))
        .filter_map(|span| span.split_once(" :: ").map(|(file, name)| (file.to_owned(), name.to_owned())))
        .collect()
}

/// Whether the text of a file has this test.
fn has(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_it = |line: &&str| line.starts_with(&format!("fn {name}("));
    lines.iter().enumerate().filter(|(_, line)| is_it(line)).any(|(index, _)| {
        let before = lines[..index].iter().rev();
        before.take_while(|line| line.starts_with("#[") || line.starts_with("//")).any(|line| *line == "#[test]")
    })
}

#[test]
fn every_test_that_a_page_names_is_there() {
    let mut missing = Vec::new();
    let mut count = 0;
    for (path, page) in pages() {
        for (file, name) in cited(&page) {
            count += 1;
            let text = std::fs::read_to_string(root().join(&file)).unwrap_or_default();
            if !has(&text, &name) {
                missing.push(format!("{}: {file} :: {name}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "these tests are not there:\n{}", missing.join("\n"));
    assert!(count > 100, "only {count} tests were found in the pages");
}

/// The sources that a page names with their folder, from the root of the repository or from `src`.
fn sources_named(page: &str) -> Vec<&str> {
    let spans = page.split("\n```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2));
    let paths = spans.map(|span| span.split(" :: ").next().unwrap_or(span));
    paths.filter(|path| path.ends_with(".rs") && path.contains('/') && !path.contains([' ', '*', '\n'])).collect()
}

#[test]
fn every_source_that_a_page_names_is_there() {
    let mut missing = Vec::new();
    let mut count = 0;
    for (path, page) in pages().iter().filter(|(path, _)| !path.starts_with(root().join("docs/measured"))) {
        for source in sources_named(page) {
            count += 1;
            if !["", "src"].iter().any(|folder| root().join(folder).join(source).is_file()) {
                missing.push(format!("{}: {source}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "these sources are not there:\n{}", missing.join("\n"));
    assert!(count > 100, "only {count} sources were found in the pages");
    assert_eq!(
        sources_named("`a/b.rs`, `c.rs`, `d/e.rs :: f`\n```rust\n`no/x.rs`\n```\n`g/h.rs`"),
        ["a/b.rs", "d/e.rs", "g/h.rs"]
    );
}

/// The guarantees are numbered, and each has tests on the page of tests, under the same title.
#[test]
fn every_guarantee_has_a_test() {
    let (promises, tests) = ("docs/reference/guarantees.md", "docs/internals/guarantee-tests.md");
    let (promises, tests) = (super::read(promises), super::read(tests));
    let promises: Vec<&str> = promises.split("\n## G").skip(1).collect();
    let tests: Vec<&str> = tests.split("\n## G").skip(1).collect();
    assert_eq!((promises.len(), tests.len()), (28, 28));
    for (number, (promise, tests)) in (1..=28).zip(promises.into_iter().zip(tests)) {
        assert!(promise.starts_with(&format!("{number}: ")), "G{number} is not where it belongs");
        assert_eq!(promise.lines().next(), tests.lines().next(), "the title of G{number} on both pages");
        assert!(!cited(tests).is_empty(), "G{number} rests on nothing");
    }
}

#[test]
fn a_name_in_another_place_is_no_test() {
    assert!(has("#[test]\n/// Why.\nfn it() {}", "it"));
    assert!(!has("fn it() {}", "it"));
    assert!(!has("#[test]\nfn it_too() {}", "it"));
    let it = || ("a/b.rs".to_owned(), "it".to_owned());
    assert_eq!(cited("see `a/b.rs :: it`, `other`, `c :: d` and `a/b.rs ::\n  it`"), [it(), it()]);
}
