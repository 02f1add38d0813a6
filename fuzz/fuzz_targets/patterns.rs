//! See `leviathan_harness::patterns`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| leviathan_harness::patterns(bytes));
