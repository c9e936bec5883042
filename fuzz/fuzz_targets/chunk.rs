#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| loadtest_fuzz::chunk(data));
