//! Whether a file can be a task's input, told by its first bytes: asked before a job is queued, so that no box starts for a file of the
//! wrong kind.
//!
//! Only what is certain is refused here: the worker's decoders have the last word. A file that is not in the table may be anything.

use gpu_tasks::Task;

/// As much of a file as is looked at.
pub const HEAD_BYTES_MAX: usize = 512;

/// A kind of file that is known by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Recording,
    Picture,
    Pdf,
    Text,
}

use Kind::{Pdf, Picture, Recording, Text};

/// Marks at the beginning of files, of at least four bytes.
const MARKS: &[(&[u8], Kind, &str)] = &[
    (b"%PDF-", Pdf, "a PDF document"),
    (b"\x89PNG\r\n\x1a\n", Picture, "a PNG picture"),
    (b"\xff\xd8\xff\xe0", Picture, "a JPEG picture"),
    (b"\xff\xd8\xff\xe1", Picture, "a JPEG picture"),
    (b"GIF8", Picture, "a GIF picture"),
    (b"II*\0", Picture, "a TIFF picture"),
    (b"MM\0*", Picture, "a TIFF picture"),
    (b"fLaC", Recording, "a FLAC recording"),
    (b"OggS", Recording, "an Ogg recording"),
    (b"ID3\x03", Recording, "an MP3 recording"),
    (b"ID3\x04", Recording, "an MP3 recording"),
];

/// Why a file cannot be an input of a task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// It has no bytes.
    #[error("{name} is empty (0 bytes)")]
    Empty { name: String },
    /// It is of a kind that the task does not take.
    #[error("{name} is {found}, not {wanted}")]
    WrongKind { name: String, found: &'static str, wanted: &'static str, hint: &'static str },
}

impl MediaError {
    /// A short, stable code: that of the worker for the same file.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty { .. } => "input.empty",
            Self::WrongKind { .. } => "input.wrong_kind",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Empty { .. } => "send the file's bytes",
            Self::WrongKind { hint, .. } => hint,
        }
    }
}

/// Checks the beginning of the file `name`: up to [`HEAD_BYTES_MAX`] bytes, or all that it has.
///
/// # Errors
/// When it is empty, or certainly of a kind that the task does not take.
pub fn check(task: Task, name: &str, head: &[u8]) -> Result<(), MediaError> {
    if head.is_empty() {
        return Err(MediaError::Empty { name: name.to_owned() });
    }
    let Some((found, description)) = kind(head) else { return Ok(()) };
    let (taken, wanted, hint): (&[Kind], _, _) = match task {
        Task::VoiceTranscribe | Task::VoiceConvert | Task::VoiceDenoise => (
            &[Recording],
            "a recording",
            "send a recording; `vision.ocr` reads the text in a picture, `voice.synthesize` reads a text aloud",
        ),
        Task::VisionOcr | Task::VisionSegment | Task::VisionDetect => (
            &[Picture, Pdf],
            "a picture",
            "send a picture; `voice.transcribe` writes down a recording, for texts there are the `text.` tasks",
        ),
        Task::VoiceSynthesize | Task::TextEmbed => (
            &[Text],
            "a text",
            "send a text; `voice.transcribe` writes down a recording, `vision.ocr` reads the text in a picture",
        ),
        // A picture or a text; any tensors; any file.
        Task::VisionEmbed | Task::OnnxRun | Task::TextClassify => return Ok(()),
    };
    if taken.contains(&found) {
        return Ok(());
    }
    Err(MediaError::WrongKind { name: name.to_owned(), found: description, wanted, hint })
}

/// The media type of a picture or recording that browsers show or play, told by its first bytes. None of a picture that can have a script.
#[must_use]
pub fn browsable(head: &[u8]) -> Option<&'static str> {
    let at = |from: usize, mark: &[u8]| head.get(from..from + mark.len()) == Some(mark);
    match head {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', ..] if at(8, b"WEBP") => Some("image/webp"),
        [b'R', b'I', b'F', b'F', ..] if at(8, b"WAVE") => Some("audio/wav"),
        [b'f', b'L', b'a', b'C', ..] => Some("audio/flac"),
        [b'O', b'g', b'g', b'S', ..] => Some("audio/ogg"),
        [b'I', b'D', b'3', ..] | [0xff, 0xf2 | 0xf3 | 0xfa | 0xfb, ..] => Some("audio/mpeg"),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => Some("audio/webm"),
        _ if at(4, b"ftypM4A") || at(4, b"ftypmp4") || at(4, b"ftypisom") => Some("audio/mp4"),
        _ => None,
    }
}

fn kind(head: &[u8]) -> Option<(Kind, &'static str)> {
    if let Some(&(_, kind, name)) = MARKS.iter().find(|(mark, ..)| head.starts_with(mark)) {
        return Some((kind, name));
    }
    match (head.get(..4), head.get(8..12)) {
        (Some(b"RIFF"), Some(b"WAVE")) => return Some((Recording, "a WAV recording")),
        (Some(b"RIFF"), Some(b"WEBP")) => return Some((Picture, "a WebP picture")),
        _ => {}
    }
    is_plain_text(head).then_some((Text, "a text"))
}

/// Printable ASCII with at least one space or line break: no recording and no picture that is read begins like that.
fn is_plain_text(head: &[u8]) -> bool {
    let plain = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~');
    head.iter().all(plain) && head.iter().any(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certainly_of_another_kind_is_refused() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        let wav = b"RIFF\x24\0\0\0WAVEfmt ";
        let code = |task, head: &[u8]| check(task, "a file", head).map_err(|error| error.code());
        assert_eq!(code(Task::VoiceTranscribe, png), Err("input.wrong_kind"));
        assert_eq!(code(Task::VoiceTranscribe, b"words, not sound\n"), Err("input.wrong_kind"));
        assert_eq!(code(Task::VoiceTranscribe, b""), Err("input.empty"));
        assert_eq!(code(Task::VisionOcr, wav), Err("input.wrong_kind"));
        assert_eq!(code(Task::TextEmbed, wav), Err("input.wrong_kind"));
        for (task, head) in [
            (Task::VoiceTranscribe, &wav[..]),
            (Task::VisionOcr, png),
            (Task::VisionOcr, b"%PDF-1.7\n"),
            (Task::VisionEmbed, b"a cat"),
            (Task::TextClassify, png),
            (Task::TextEmbed, "Grüße".as_bytes()),
            // Nothing that is known: the worker looks closer.
            (Task::VoiceTranscribe, b"\xff\xfb\x90\x44"),
            (Task::VisionOcr, b"\0\0\0\x1cftypavif"),
        ] {
            assert_eq!(code(task, head), Ok(()), "{task} {head:?}");
        }
        let error = check(Task::VisionOcr, "a.wav", wav).unwrap_err();
        assert_eq!(error.to_string(), "a.wav is a WAV recording, not a picture");
    }
}
