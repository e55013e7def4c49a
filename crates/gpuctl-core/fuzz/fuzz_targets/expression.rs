//! Any text through `expression`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| gpuctl_core_fuzz::expression(text));
