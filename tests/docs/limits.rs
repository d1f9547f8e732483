//! Every constant of src/limits.rs stands in docs/reference/limits.md, with its value.

use super::read;

/// The constants of the source with their values: products of numbers and shifts.
fn constants(source: &str) -> Vec<(&str, u64)> {
    let lines = source.lines().filter_map(|line| line.strip_prefix("pub const "));
    let number = |text: &str| -> u64 { text.trim().replace('_', "").parse().expect("a number") };
    let factor = |text: &str| text.split_once("<<").map_or_else(|| number(text), |(n, by)| number(n) << number(by));
    lines
        .map(|line| {
            let (name, rest) = line.split_once(':').expect("a type");
            let (_, value) = rest.trim_end_matches(';').split_once('=').expect("a value");
            (name, value.split('*').map(factor).product())
        })
        .collect()
}

/// A number as the page writes it: digits in groups of three.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn complaints(source: &str, page: &str) -> Vec<String> {
    let constants = constants(source);
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).collect();
    let mut found = Vec::new();
    for (name, value) in &constants {
        let row = rows.iter().find(|row| row.contains(&format!("`{name}`")));
        let mut numbers = row.into_iter().flat_map(|row| row.split(|c: char| !c.is_ascii_digit() && c != ','));
        if !numbers.any(|number| number.trim_end_matches(',') == grouped(*value)) {
            found.push(format!("{name} is {}", grouped(*value)));
        }
    }
    let last = |row: &&&str| row.trim_end_matches(" |").rsplit(" | ").next().map(str::to_owned);
    for cell in rows.iter().filter(|row| row.ends_with("` |")).filter_map(|row| last(&row)) {
        let named = cell.split('`').skip(1).step_by(2);
        let unknown = named.filter(|name| !constants.iter().any(|(known, _)| known == name));
        found.extend(unknown.map(|name| format!("{name} is no constant")));
    }
    found
}

#[test]
fn every_limit_is_in_the_table() {
    let (source, page) = (read("src/limits.rs"), read("docs/reference/limits.md"));
    assert!(constants(&source).len() > 20, "the constants are not seen");
    let found = complaints(&source, &page);
    assert!(found.is_empty(), "docs/reference/limits.md and src/limits.rs differ:\n{}", found.join("\n"));
}

#[test]
fn a_wrong_limit_is_found() {
    let source = "pub const A_MAX: usize = 64 << 10;\npub const B: u64 = 10 * 366 * 1_000;\n";
    assert_eq!(complaints(source, "| a | 1 to 65,536 | `A_MAX` |\n| b | 3,660,000 | `B` |"), [""; 0]);
    assert_eq!(
        complaints(source, "| a | 1 to 65,537 | `A_MAX` |\n| b | 3,660,000 | `B`, `C` |"),
        ["A_MAX is 65,536", "C is no constant"]
    );
}
