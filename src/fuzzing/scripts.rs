//! What a fuzzer of calls begins with.
//!
//! Never here: what the calls are (`operations`).

use crate::log::fuzzing::seeds::Seeds;

type Seed = (&'static str, String, Vec<u8>);

fn script(name: &str, flags: u8, ops: &[[u8; 2]]) -> Seed {
    ("operations", name.to_owned(), std::iter::once(flags).chain(ops.iter().flatten().copied()).collect())
}

pub(super) fn seeds() -> Seeds {
    [calls(), of_groups(), faults()].concat()
}

/// Calls without faults, some with crashes.
fn calls() -> Seeds {
    vec![
        script("publish", 0, &[[4, 0], [4, 0xe3], [7, 4], [10, 0], [10, 1], [2, 0], [7, 4], [10, 0]]),
        script(
            "settle",
            1,
            &[
                [4, 0xe1],
                [7, 4],
                [12, 0],
                [13, 0],
                [12, 1],
                [12, 2],
                [15, 200],
                [7, 4],
                [19, 0],
                [3, 0],
                [7, 2],
                [14, 1],
                [7, 1],
            ],
        ),
        script(
            "letters",
            0,
            &[[4, 0xe0], [7, 4], [13, 0], [13, 0], [13, 0], [17, 0], [14, 0], [14, 1], [14, 2], [1, 0], [7, 4]],
        ),
        script("killed", 1, &[[4, 0xe1], [7, 3], [1, 0], [7, 4], [10, 0], [2, 7], [4, 1], [16, 0], [2, 3], [7, 4]]),
        script(
            "clocks",
            0,
            &[[4, 0xe0], [7, 4], [12, 1], [18, 9], [16, 0], [18, 1], [16, 0], [7, 4], [15, 255], [7, 4]],
        ),
        script(
            "transactions",
            0,
            &[[4, 0xe0], [7, 4], [20, 0xc2], [20, 0x41], [2, 0], [7, 4], [20, 0x8b], [20, 0x1d], [1, 0], [7, 4]],
        ),
        script(
            "in-order",
            3,
            &[[4, 0xe3], [4, 0xe3], [7, 4], [12, 0], [7, 4], [1, 0], [7, 4], [13, 0], [17, 0], [14, 1], [7, 4]],
        ),
    ]
}

/// Groups of other kinds, and what changes them.
fn of_groups() -> Seeds {
    vec![
        script("filtered", 11, &[[4, 0xe3], [7, 4], [12, 0], [1, 0], [7, 4], [4, 0xe1], [2, 0], [7, 4], [10, 0]]),
        script(
            "sought",
            1,
            &[
                [4, 0xe1],
                [7, 4],
                [10, 0],
                [12, 0],
                [21, 2],
                [7, 4],
                [10, 0],
                [2, 0],
                [7, 4],
                [21, 0],
                [4, 0x21],
                [7, 4],
            ],
        ),
        script("by-partition", 5, &[[4, 0xe1], [7, 4], [10, 0], [7, 4], [12, 1], [2, 1], [7, 4]]),
    ]
}

fn faults() -> Seeds {
    vec![
        // A fault takes three bytes: the kind, and after how many requests.
        ("operations", "fault-io".to_owned(), vec![0, 0, 0, 9, 4, 0xe0, 7, 4, 10, 0, 4, 1, 17, 0, 4, 0]),
        ("operations", "fault-space".to_owned(), vec![0, 0, 1, 3, 4, 0xe0, 7, 4, 10, 0, 4, 1, 17, 0, 4, 0]),
        ("operations", "fault-files".to_owned(), vec![1, 0, 2, 2, 4, 0xe1, 7, 4, 3, 0, 4, 1, 17, 0, 4, 0]),
        (
            "operations",
            "fault-crash".to_owned(),
            vec![1, 0, 4, 7, 4, 0xe1, 7, 4, 10, 0, 4, 1, 0, 5, 4, 17, 0, 4, 0, 2, 8],
        ),
    ]
}
