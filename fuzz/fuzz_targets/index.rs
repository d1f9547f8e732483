//! See `millpond::simulation::fuzzing::index`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    millpond::simulation::fuzzing::index(data);
});
