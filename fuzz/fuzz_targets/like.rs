//! See `kelvin_fuzz::like`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kelvin_fuzz::like(data));
