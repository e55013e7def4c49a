//! What to do about a file that a task cannot take: by the task, and by what the file is.

use gpu_tasks::Task;

use super::kind::{Family, FileKind};

/// What a task takes, as far as hints differ.
#[derive(Clone, Copy)]
enum Taken {
    Recording,
    Picture,
    Text,
    Tensors,
    /// Any file.
    Any,
}

impl Taken {
    fn by(task: Task) -> Self {
        match task {
            Task::VoiceTranscribe | Task::VoiceDenoise | Task::VoiceConvert => Self::Recording,
            Task::VisionOcr | Task::VisionSegment | Task::VisionDetect | Task::VisionEmbed => {
                Self::Picture
            }
            Task::VoiceSynthesize | Task::TextEmbed => Self::Text,
            Task::OnnxRun => Self::Tensors,
            Task::TextClassify => Self::Any,
        }
    }
}

const AS_WAV: &str = "convert it to WAV, e.g. with `ffmpeg -i FILE -c:a pcm_s16le OUT.wav`";
const AS_PNG: &str = "save it as PNG or JPEG";
const AS_TEXT: &str = "save it as plain text in UTF-8";
const AS_ARRAYS: &str =
    "give tensors as .npz or .npy (`numpy.savez`), or as JSON with dtype, shape and data";
const UNPACKED: &str = "unpack it, and submit one job per file";

/// For a file of another kind than the task takes.
pub(super) fn for_kind(task: Task, found: FileKind) -> &'static str {
    match Taken::by(task) {
        Taken::Recording => for_recording(found.family),
        Taken::Picture => for_picture(found.family),
        Taken::Text => for_text(found.family),
        Taken::Tensors => for_tensors(found.family),
        Taken::Any => for_unknown(task),
    }
}

fn for_recording(found: Family) -> &'static str {
    match found {
        Family::Recording | Family::Video => AS_WAV,
        Family::Picture => "submit a recording; `vision.ocr` reads the text in a picture",
        Family::Text => "submit a recording; `voice.synthesize` reads a text aloud",
        Family::Archive => UNPACKED,
        Family::Pdf | Family::Document | Family::Numbers | Family::Model | Family::Other => {
            "submit a recording, e.g. a 16-bit WAV"
        }
    }
}

fn for_picture(found: Family) -> &'static str {
    match found {
        Family::Picture => AS_PNG,
        Family::Pdf => {
            "make a picture of each page, e.g. with `pdftoppm -r 200 -png FILE page`, and submit these"
        }
        Family::Document => {
            "save it as PDF, and make a picture of each page, e.g. with `pdftoppm -r 200 -png FILE page`"
        }
        Family::Video => "take pictures out of it, e.g. with `ffmpeg -i FILE -vf fps=1 %04d.png`",
        Family::Recording => "submit a picture; `voice.transcribe` writes down a recording",
        Family::Text => "submit a picture, e.g. a PNG; for texts there are the `text.` tasks",
        Family::Archive => UNPACKED,
        Family::Numbers | Family::Model | Family::Other => "submit a picture, e.g. a PNG",
    }
}

fn for_text(found: Family) -> &'static str {
    match found {
        Family::Text => AS_TEXT,
        Family::Pdf => {
            "take its text out, e.g. with `pdftotext FILE`; of scanned pages with `vision.ocr`"
        }
        Family::Document => "save it as plain text in UTF-8 from the program that wrote it",
        Family::Picture => "submit a text; `vision.ocr` reads the text in a picture",
        Family::Recording | Family::Video => {
            "submit a text; `voice.transcribe` writes down a recording"
        }
        Family::Archive => UNPACKED,
        Family::Numbers | Family::Model | Family::Other => AS_TEXT,
    }
}

fn for_tensors(found: Family) -> &'static str {
    match found {
        Family::Model => {
            "models go into the models' folder, and are named with --model; the input is tensors as .npz, .npy or JSON"
        }
        Family::Archive => UNPACKED,
        _ => AS_ARRAYS,
    }
}

/// For a file of a kind that is not known.
pub(super) fn for_unknown(task: Task) -> &'static str {
    match Taken::by(task) {
        Taken::Recording => {
            "submit a recording, e.g. a 16-bit WAV; `text.classify` says what the file is"
        }
        Taken::Picture => "submit a picture, e.g. a PNG; `text.classify` says what the file is",
        Taken::Text => AS_TEXT,
        Taken::Tensors => AS_ARRAYS,
        Taken::Any => {
            "a text classifier takes texts; Magika (`--model magika-v3-3`) takes any file"
        }
    }
}

/// For a file of the right kind with a feature that is not supported.
pub(super) fn for_unsupported(task: Task) -> &'static str {
    match Taken::by(task) {
        Taken::Recording => AS_WAV,
        Taken::Picture => AS_PNG,
        Taken::Text | Taken::Any => AS_TEXT,
        Taken::Tensors => {
            "save the arrays in a type that ONNX has, e.g. `array.astype(\"float32\")`"
        }
    }
}

/// For a file that contradicts itself.
pub(super) fn for_damaged(task: Task) -> &'static str {
    match Taken::by(task) {
        Taken::Recording => {
            "play it in another program: if that can, convert it with `ffmpeg -i FILE OUT.wav`"
        }
        Taken::Picture => "open it in another program: if that can, save it as PNG",
        Taken::Text | Taken::Any => AS_TEXT,
        Taken::Tensors => AS_ARRAYS,
    }
}

/// For a file beyond the limit of bytes.
pub(super) fn for_too_large(task: Task) -> &'static str {
    match Taken::by(task) {
        Taken::Recording => "cut the recording into parts",
        Taken::Picture => "save it smaller, e.g. as a JPEG of fewer pixels",
        Taken::Text | Taken::Any => "submit it in parts",
        Taken::Tensors => "submit fewer rows a job",
    }
}

/// For a file on which a decoder's code panicked.
pub(super) fn for_crash(task: Task) -> &'static str {
    match Taken::by(task) {
        Taken::Recording => {
            "convert it with `ffmpeg -i FILE OUT.wav`; please report the file, or how it was made"
        }
        Taken::Picture => "save it as PNG; please report the file, or how it was made",
        Taken::Text | Taken::Any | Taken::Tensors => {
            "please report it with the file, or how it was made"
        }
    }
}
