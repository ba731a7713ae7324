//! See `kelvin_fuzz::copy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kelvin_fuzz::copy(data));
