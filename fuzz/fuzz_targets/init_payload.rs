//! See `kelvin_fuzz::init_payload`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kelvin_fuzz::init_payload(data));
