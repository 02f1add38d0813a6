//! See `leviathan_harness::documents`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| leviathan_harness::documents(bytes));
