//! See `millpond::simulation::fuzzing::segment`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    millpond::simulation::fuzzing::segment(data);
});
