//! Any text through `fields`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| gpuctl_core_fuzz::fields(text));
