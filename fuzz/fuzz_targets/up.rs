//! See `kelvin_fuzz::up`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kelvin_fuzz::up(data));
