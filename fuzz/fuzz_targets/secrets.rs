//! See `leviathan_harness::secrets`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| leviathan_harness::secrets(bytes));
