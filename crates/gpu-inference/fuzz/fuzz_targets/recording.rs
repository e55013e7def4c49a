//! Any bytes as a recording.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: gpu_inference_fuzz::survive_crates(),
    |bytes: &[u8]| gpu_inference_fuzz::recording(bytes)
);
