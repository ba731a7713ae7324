//! See `kelvin_fuzz::key_order`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kelvin_fuzz::key_order(data));
