//! See `kelvin_fuzz::query`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kelvin_fuzz::query(data));
