//! See `leviathan_harness::tool_paths`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| leviathan_harness::tool_paths(bytes));
