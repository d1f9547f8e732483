//! See `millpond::simulation::fuzzing::header`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    millpond::simulation::fuzzing::header(data);
});
