//! See `kelvin_fuzz::decode`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kelvin_fuzz::decode(data));
