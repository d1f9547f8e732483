//! Tests of streams in the state.
