//! See `kelvin_fuzz::row_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kelvin_fuzz::row_record(data));
