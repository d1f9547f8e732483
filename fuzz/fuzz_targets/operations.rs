//! See `millpond::simulation::fuzzing::operations`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    millpond::simulation::fuzzing::operations(data);
});
