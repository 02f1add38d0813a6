//! See `leviathan_harness::cosignature`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| leviathan_harness::cosignature(bytes));
