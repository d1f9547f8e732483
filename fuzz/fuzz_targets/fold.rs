//! See `millpond::simulation::fuzzing::fold`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    millpond::simulation::fuzzing::fold(data);
});
