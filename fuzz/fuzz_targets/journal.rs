//! See `leviathan_harness::journal`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| leviathan_harness::journal(bytes));
