//! Any bytes as a picture or a document.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: gpu_inference_fuzz::survive_crates(),
    |bytes: &[u8]| gpu_inference_fuzz::picture(bytes)
);
