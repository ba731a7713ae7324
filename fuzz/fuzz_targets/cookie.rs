//! See `kelvin_fuzz::cookie`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kelvin_fuzz::cookie(data));
