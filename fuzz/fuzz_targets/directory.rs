//! See `millpond::simulation::fuzzing::directory`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    millpond::simulation::fuzzing::directory(data);
});
