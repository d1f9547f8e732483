//! What filters say, and where they are none.

use super::*;
use crate::limits::FILTER_LEN_MAX;
use crate::record::message::encode_front;
use proptest::prelude::*;

fn passes(filter: &str, headers: &[(&str, &str)]) -> bool {
    let mut part = Vec::new();
    encode_front(None, headers.iter().map(|(name, value)| (*name, value.as_bytes())), &mut part);
    let filter = Filter::parse(filter).unwrap_or_else(|fault| panic!("{filter}: {fault:?}"));
    filter.passes(&MessageView::parse(&part).unwrap())
}

#[test]
fn each_test_says_what_it_says() {
    let headers =
        [("type", "order.placed"), ("region", "eu"), ("weight", "12.50"), ("tag", "a"), ("tag", "b"), ("Or", "")];
    let table = [
        ("type = 'order.placed'", true),
        ("type = 'order'", false),
        ("type in ('x', 'order.placed')", true),
        ("type in ('x')", false),
        ("type starts with 'order.'", true),
        ("type starts with 'orders'", false),
        ("type exists", true),
        ("Type exists", false),
        ("not missing exists", true),
        ("missing = ''", false),
        ("Or = ''", true),
        ("tag = 'b'", true),
        ("not tag = 'b'", false),
        ("tag = 'a' and tag = 'b'", true),
        ("type matches 'order.*'", true),
        ("type matches 'order.>'", true),
        ("type matches '>'", true),
        ("type matches '*'", false),
        ("type matches '*.*.*'", false),
        ("weight > 9", true),
        ("weight >= 12.5 and weight <= 12.500", true),
        ("weight < 12.5", false),
        ("weight > -100.7", true),
        ("weight = 12.5", true),
        ("weight = '12.5'", false),
        ("region < 10", false),
        ("region = 'eu' or region = 'us' and weight > 100", true),
        ("(region = 'eu' or region = 'us') and weight > 100", false),
        ("not region = 'eu' or tag = 'a'", true),
        ("not (region = 'eu' or tag = 'a')", false),
        ("not not region='eu'", true),
        ("\"type\" exists and\n\t\"in\" exists", false),
    ];
    for (filter, expected) in table {
        assert_eq!(passes(filter, &headers), expected, "{filter}");
    }
    assert!(passes("name = 'it''s' and \"a \"\"name\"\"\" exists", &[("name", "it's"), ("a \"name\"", "")]));
    assert!(passes("\"\" = 'ü'", &[("", "ü")]));
}

#[test]
fn errors_point_at_the_first_character_that_does_not_fit() {
    let header = "a header, `not` or `(`; in double quotes if its name is another word of filters";
    let test = "`=`, `<`, `<=`, `>`, `>=`, `in`, `starts with`, `matches` or `exists`";
    let pattern = "words between dots in single quotes: `*` for any one, `>` at the end for one or more";
    let table = [
        ("", 1, header),
        ("   ", 4, header),
        ("type", 5, test),
        ("type is 'x'", 6, test),
        ("in exists", 1, header),
        ("type = x", 8, "a text in single quotes or a number"),
        ("type < 'x'", 8, "a number"),
        ("type = 'x' type = 'y'", 12, "`and`, `or` or the end"),
        ("type = 'x' and", 15, header),
        ("(type = 'x'", 12, "`and`, `or` or `)`"),
        ("type = 'x')", 11, "`and`, `or` or the end"),
        ("type in 'x'", 9, "`(`"),
        ("type in ('x'", 13, "`,` or `)`"),
        ("type in ()", 10, "a text in single quotes"),
        ("type starts 'x'", 13, "`with`"),
        ("type = 'x", 10, "the quote that ends the text"),
        ("type = 'ü' & x", 12, "a header, a text in single quotes, a number or a sign"),
        ("weight < 1.2.3", 10, "a number like 10, -3 or 2.50"),
        ("weight < --1", 10, "a number like 10, -3 or 2.50"),
        ("weight < 1.", 10, "a number like 10, -3 or 2.50"),
        ("type matches 'order.'", 14, pattern),
        ("type matches 'order.>.x'", 14, pattern),
        ("type matches 'or*'", 14, pattern),
        ("type matches 5", 14, "a text in single quotes"),
    ];
    for (filter, column, expected) in table {
        assert_eq!(Filter::parse(filter).map(drop), Err(FilterFault { column, expected }), "{filter:?}");
    }
}

#[test]
fn what_is_too_long_or_too_deep_is_refused() {
    let longest = format!("type = '{}'", "ü".repeat((FILTER_LEN_MAX - 9) / 2));
    assert_eq!(longest.len(), FILTER_LEN_MAX - 1);
    assert!(Filter::parse(&longest).is_ok());
    let fault = Filter::parse(&format!("{longest}  ")).map(drop).unwrap_err();
    assert_eq!((fault.column, fault.expected), (518, "the end: a filter has 1,024 bytes at most"));
    let nested = |depth: usize| format!("{}type exists{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Filter::parse(&nested(15)).is_ok());
    let fault = Filter::parse(&nested(16)).map(drop).unwrap_err();
    assert_eq!((fault.column, fault.expected), (17, "less: parentheses and `not` are nested 16 deep at most"));
    assert_eq!(Filter::parse(&format!("{}type exists", "not ".repeat(16))).map(drop).unwrap_err().column, 65);
    // One after another they are as many as there is room for.
    assert!(Filter::parse(&["(not a exists)"; 50].join(" or ")).is_ok());
}

properties! {
    #[test]
    fn any_text_is_a_filter_or_a_fault_in_it(text in "[a-c'\"()<>=!., 0-9ü-]{0,40}|\\PC{0,40}") {
        match Filter::parse(&text) {
            Ok(filter) => prop_assert_eq!(filter.text(), text),
            Err(FilterFault { column, .. }) => prop_assert!((1..=text.chars().count() + 1).contains(&column)),
        }
    }

    #[test]
    fn numbers_compare_as_numbers(one in -1_000_000i64..1_000_000, two in -1_000_000i64..1_000_000, zeros in 0usize..3) {
        let text = |n: i64| {
            let sign = if n < 0 { "-" } else { "" };
            let (whole, fraction) = (n.unsigned_abs() / 1000, n.unsigned_abs() % 1000);
            format!("{sign}{}{whole}.{fraction:03}{}", "0".repeat(zeros), "0".repeat(zeros))
        };
        let (first, second) = (text(one), text(two));
        let compared = Decimal::parse(first.as_bytes()).unwrap().cmp(&Decimal::parse(second.as_bytes()).unwrap());
        prop_assert_eq!(compared, one.cmp(&two));
    }
}
