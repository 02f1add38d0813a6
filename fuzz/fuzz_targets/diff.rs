//! See `leviathan_harness::diff`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| leviathan_harness::diff(bytes));
