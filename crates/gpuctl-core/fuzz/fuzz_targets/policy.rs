//! Any text through `policy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| gpuctl_core_fuzz::policy(text));
