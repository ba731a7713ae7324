//! See `kelvin_fuzz::pgoutput`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kelvin_fuzz::pgoutput(data));
