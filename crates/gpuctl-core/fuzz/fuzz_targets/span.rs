//! Any text through `span`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| gpuctl_core_fuzz::span(text));
