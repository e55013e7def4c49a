//! What is fuzzed: any bytes are soon decoded or refused with a hint, never by a panic, and in the memory that was announced before.
//!
//! The seeds are the files of `tests/it/seeds.rs`. ONNX Runtime is not needed: it is loaded when a model is opened.

use std::path::Path;

use gpu_inference::{Content, Decoder, InputLimits, Params, Prepared, Task};
use peak_alloc::PeakAlloc;
use tempfile::NamedTempFile;

thread_local! {
    /// The bytes of one input after the other: a decoder opens a path.
    static FILE: NamedTempFile = NamedTempFile::new().expect("a file");
}

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What a decoder may take beside what it announces: tables, and files that it holds.
const MEMORY_SLACK: u64 = 64 << 20;
/// Small, so that a run gets to many inputs.
const LIMITS: InputLimits = InputLimits {
    audio_seconds_max: 60,
    image_pixels_max: 1_000_000,
    image_side_max: 10_000,
    text_chars_max: 100_000,
    file_bytes_max: 16 << 20,
};

/// Lets panics of other crates pass to the decoders, which survive them: libFuzzer would end at each. Those in gpuctl's own code still end it.
pub fn survive_crates() {
    let own = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_crate = |place: &std::panic::Location<'_>| place.file().contains("/registry/src/");
        if !panic.location().is_some_and(is_crate) {
            own(panic);
        }
    }));
}

/// A recording.
pub fn recording(bytes: &[u8]) {
    if let Some(prepared) = decoded(Task::VoiceTranscribe, bytes) {
        let Content::Audio(audio) = prepared.content() else { panic!("not a recording") };
        assert!(audio.samples().iter().all(|sample| sample.is_finite()));
    }
}

/// A picture, or a document's pages.
pub fn picture(bytes: &[u8]) {
    if let Some(prepared) = decoded(Task::VisionOcr, bytes) {
        let Content::Picture(picture) = prepared.content() else { panic!("not a picture") };
        assert!(picture.pages().len() <= picture.pages_total());
    }
}

/// Tensors in NumPy's files or JSON.
pub fn tensors(bytes: &[u8]) {
    decoded(Task::OnnxRun, bytes);
}

/// A text in any encoding, and the type of a file.
pub fn text(bytes: &[u8]) {
    if let Some(prepared) = decoded(Task::TextEmbed, bytes) {
        let Content::Text(text) = prepared.content() else { panic!("not a text") };
        assert!(!text.trim().is_empty());
    }
    decoded(Task::TextClassify, bytes);
}

fn decoded(task: Task, bytes: &[u8]) -> Option<Prepared> {
    FILE.with(|file| {
        std::fs::write(file.path(), bytes).expect("a file");
        decoded_file(task, file.path())
    })
}

fn decoded_file(task: Task, path: &Path) -> Option<Prepared> {
    let (decoder, params) = (Decoder { limits: LIMITS, ..Decoder::default() }, Params::default());
    let announced = decoder.bytes_max(task, path, &params);
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = decoder.decode(task, path, &params);
    let taken = MEMORY.peak_usage().saturating_sub(before) as u64;
    assert!(taken <= announced + MEMORY_SLACK, "{taken} bytes taken, {announced} announced");
    match result {
        Ok(prepared) => {
            let held = prepared.bytes();
            assert!(held <= announced, "{held} bytes held, {announced} announced");
            Some(prepared)
        }
        Err(error) => {
            assert!(!error.hint(task).is_empty() && error.to_string().len() < 4_000, "{error}");
            // Releases do not check for overflow: to find it in gpuctl's own code is enough.
            let overflows = error.to_string().contains("overflow");
            assert!(error.code() != "input.crash" || overflows, "{error}");
            None
        }
    }
}
