//! See `leviathan_harness::tool_inputs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| leviathan_harness::tool_inputs(bytes));
