//! See `millpond::simulation::fuzzing::section`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    millpond::simulation::fuzzing::section(data);
});
