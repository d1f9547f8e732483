//! See `millpond::simulation::fuzzing::names`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    millpond::simulation::fuzzing::names(data);
});
