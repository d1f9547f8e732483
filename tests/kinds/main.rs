//! Kinds of faults: each module holds one kind as a whole, over all places where it could live.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
