//! Every kind of input, and what in it can claim or become more than it is.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Once;

use gpu_inference::{Cancel, Decoder, InputError, InputLimits, Params, Prepared, Task};
use rustix::process::{Resource, Rlimit, setrlimit};
use tempfile::TempDir;

use crate::craft::{deflated_zeros, png_chunk, zip_of};

/// The process's address space: its code, its threads' stacks and arenas, and less than any bomb here asks for.
const MEMORY_MAX: u64 = 768 << 20;
/// Longest text of an error, its causes left out.
const ERROR_BYTES_MAX: usize = 4 << 10;

fn limit_memory() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = Rlimit { current: Some(MEMORY_MAX), maximum: Some(MEMORY_MAX) };
        setrlimit(Resource::As, limit).unwrap();
    });
}

/// A folder with files; writing does not keep them in memory.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        limit_memory();
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, parts: &[&[u8]]) -> PathBuf {
        let path = self.0.path().join(name);
        let mut file = File::create(&path).unwrap();
        for part in parts {
            file.write_all(part).unwrap();
        }
        path
    }

    /// A file that goes on with zeros up to `size`, which take no disk.
    fn sparse(&self, name: &str, start: &[u8], size: u64) -> PathBuf {
        let path = self.write(name, &[start]);
        File::options().write(true).open(&path).unwrap().set_len(size).unwrap();
        path
    }
}

fn decode(task: Task, path: &Path) -> Result<Prepared, InputError> {
    Decoder::default().decode(task, path, &Params::default())
}

/// The code and the text of the error, which is short.
fn refusal(task: Task, path: &Path) -> (&'static str, String) {
    let error = decode(task, path).unwrap_err();
    let text = error.to_string();
    assert!(text.len() < ERROR_BYTES_MAX, "{} bytes", text.len());
    (error.code(), text)
}

#[test]
fn a_header_of_numpy_is_bounded_before_it_is_read() {
    let files = Files::new();
    let header = |version: u8, length: &[u8]| [b"\x93NUMPY", &[version, 0][..], length].concat();
    let long = header(2, &3_000_000_000_u32.to_le_bytes());
    let (code, text) = refusal(Task::OnnxRun, &files.write("long.npy", &[&long]));
    assert_eq!(code, "input.damaged");
    assert!(text.contains("3000000000 bytes"), "{text}");
    let archive = zip_of(&[("x.npy", &long)]);
    let (code, text) = refusal(Task::OnnxRun, &files.write("long.npz", &[&archive]));
    assert_eq!(code, "input.damaged");
    assert!(text.contains("3000000000 bytes"), "{text}");
    // The header's parser calls itself for each bracket: 65,000 use up a thread's stack, 40 all the time there is.
    for brackets in [65_000, 40] {
        let nested = ["(".repeat(brackets), ")".repeat(brackets.min(500))].concat();
        let length = u16::try_from(nested.len()).unwrap().to_le_bytes();
        let path = files.write("nested.npy", &[&header(1, &length), nested.as_bytes()]);
        let (code, text) = refusal(Task::OnnxRun, &path);
        assert_eq!(code, "input.damaged");
        assert!(text.contains("too many brackets"), "{text}");
    }
}

#[test]
fn an_archive_s_list_is_bounded_before_it_is_read() {
    let files = Files::new();
    let count = 1_500_000_u32;
    let path = files.0.path().join("list.npz");
    let mut file = std::io::BufWriter::new(File::create(&path).unwrap());
    file.write_all(b"PK\x03\x04").unwrap();
    let mut entry = [b"PK\x01\x02", &[0; 42][..]].concat();
    entry[28] = 8;
    for number in 0..count {
        file.write_all(&entry).unwrap();
        write!(file, "{number:08}").unwrap();
    }
    // The end of the list in 64 bits, where to find it, and the end in 32 bits, which points to these.
    let length = u64::from(count) * 54;
    let mut end = [b"PK\x06\x06", &44_u64.to_le_bytes()[..], &[45, 0, 45, 0], &[0; 8]].concat();
    for number in [count.into(), count.into(), length, 4] {
        end.extend_from_slice(&u64::to_le_bytes(number));
    }
    end.extend([b"PK\x06\x07", &[0; 4][..], &(length + 4).to_le_bytes(), &[1, 0, 0, 0]].concat());
    end.extend([b"PK\x05\x06", &[0; 4][..], &[0xff; 12], &[0; 2]].concat());
    file.write_all(&end).unwrap();
    drop(file);
    let (code, text) = refusal(Task::OnnxRun, &path);
    assert_eq!(code, "input.damaged");
    assert!(text.contains("list of entries is too long"), "{text}");
    assert!(bytes_max(Task::OnnxRun, &path) < 300 << 20);
}

#[test]
fn numbers_in_json_are_counted_before_they_are_kept() {
    let files = Files::new();
    let ones = b"1,".repeat(30 << 20);
    let tensor = |shape: &str| format!(r#"{{"x": {{"dtype": "uint8", "shape": {shape}, "data": ["#);
    let path = files.write("more.json", &[tensor("[1]").as_bytes(), &ones, b"1]}}"]);
    let (code, text) = refusal(Task::OnnxRun, &path);
    assert_eq!((code, text.contains("x: more than 1 numbers")), ("input.damaged", true), "{text}");
    let path = files.write("shape.json", &[br#"{"x": {"shape": ["#, &ones, b"1]}}"]);
    assert_eq!(refusal(Task::OnnxRun, &path).0, "input.damaged");
    let path = files.write("other.json", &[br#"{"x": {"other": ["#, &ones, b"1]}}"]);
    let (code, text) = refusal(Task::OnnxRun, &path);
    assert_eq!((code, text.contains("x: lacks dtype")), ("input.damaged", true), "{text}");
}

#[test]
fn an_error_repeats_only_so_much_of_its_input() {
    let files = Files::new();
    let long = "x".repeat(10 << 20);
    let texts = [
        format!(r#"{{"x": {{"dtype": "{long}", "shape": [1], "data": [1]}}}}"#),
        format!(r#"{{"x": {{"dtype": "uint8", "shape": [1], "data": ["{long}"]}}}}"#),
        format!(r#"{{"x": {{"dtype": "uint8", "shape": "{long}", "data": [1]}}}}"#),
        format!(r#"{{"{long}": {{"dtype": "uint8", "shape": [1], "data": [1]}}}}"#),
        format!(r#"{{"x": "{long}"}}"#),
    ];
    for text in texts {
        assert_eq!(
            refusal(Task::OnnxRun, &files.write("t.json", &[text.as_bytes()])).0,
            "input.damaged"
        );
    }
    let name = "n".repeat(60_000);
    let path = files.write("name.npz", &[&zip_of(&[(&name, b"x")])]);
    assert_eq!(refusal(Task::OnnxRun, &path).0, "input.damaged");
    let path = PathBuf::from(format!("/{}", "folder/".repeat(100_000)));
    let (code, _) = refusal(Task::TextEmbed, &path);
    assert_eq!(code, "input.unreadable");
    let error = decode(Task::TextEmbed, &path).unwrap_err();
    assert_eq!(error.blame(), gpu_inference::Blame::Input, "no box can open it");
}

#[test]
fn what_a_picture_s_header_claims_or_holds_is_bounded() {
    let files = Files::new();
    let side = 60_000_u32;
    let ihdr = [&side.to_be_bytes()[..], &side.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let png =
        [b"\x89PNG\r\n\x1a\n", &png_chunk(b"IHDR", &ihdr)[..], &png_chunk(b"IDAT", &[])].concat();
    let webp = [b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0", &[0xff; 6][..]].concat();
    let gif = [b"GIF89a", &[0xff; 4][..], &[0; 3]].concat();
    let jpeg =
        [b"\xff\xd8\xff\xc0\0\x0b\x08", &[0xff; 4][..], &[1, 1, 0x11, 0], b"\xff\xd9"].concat();
    for (name, bytes) in [("png", png), ("webp", webp), ("gif", gif), ("jpeg", jpeg)] {
        let path = files.write(name, &[&bytes]);
        let (code, text) = refusal(Task::VisionOcr, &path);
        let known = ["input.too_large", "input.damaged", "input.truncated", "input.unsupported"];
        assert!(known.contains(&code), "{name}: {code} {text}");
        assert_eq!(bytes_max(Task::VisionOcr, &path), 0, "{name}");
    }
    // A colour profile of 800 MB, compressed to 5.
    let ihdr = [&4_u32.to_be_bytes()[..], &4_u32.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let profile = [b"p\0\0", &deflated_zeros(800 << 20)[..]].concat();
    let png = [b"\x89PNG\r\n\x1a\n", &png_chunk(b"IHDR", &ihdr)[..], &png_chunk(b"iCCP", &profile)]
        .concat();
    let path = files.write("profile.png", &[&png, &png_chunk(b"IDAT", &[])]);
    assert!(decode(Task::VisionOcr, &path).is_err());
    // A JPEG whose comment never ends: the file is not read whole to find that out.
    let jpeg = files.sparse("long.jpg", b"\xff\xd8\xff\xda\0\x02", 2 << 30);
    assert_eq!(refusal(Task::VisionOcr, &jpeg).0, "input.too_large");
    let webp = files.sparse("long.webp", b"RIFF\xff\xff\xff\x7fWEBPEXIF\xff\xff\xff\x7f", 2 << 30);
    assert!(decode(Task::VisionOcr, &webp).is_err());
}

#[test]
fn a_recording_s_tags_are_bounded() {
    let files = Files::new();
    let size = 1_u32 << 30;
    let list = [
        b"RIFF\xff\xff\xff\x7fWAVELIST",
        &size.to_le_bytes()[..],
        b"INFOINAM",
        &(size - 12).to_le_bytes(),
    ];
    let path = files.sparse("tags.wav", &list.concat(), u64::from(size) + 100);
    let (code, text) = refusal(Task::VoiceTranscribe, &path);
    assert_eq!(code, "input.damaged");
    assert!(text.contains("no description of its sound"), "{text}");
}

#[test]
fn a_text_and_bytes_are_read_up_to_their_limits() {
    let files = Files::new();
    let path = files.sparse("long", b"x", 3 << 30);
    assert_eq!(refusal(Task::TextEmbed, &path).0, "input.text_too_long");
    assert_eq!(refusal(Task::VoiceSynthesize, &path).0, "input.text_too_long");
    assert!(bytes_max(Task::TextEmbed, &path) < 4 << 20);
    let decoder = Decoder {
        limits: InputLimits { file_bytes_max: 1 << 20, ..InputLimits::default() },
        cancel: Cancel::new(),
    };
    let error = decoder.decode(Task::OnnxRun, &path, &Params::default()).unwrap_err();
    assert_eq!(error.code(), "input.too_large");
    assert_eq!(decoder.bytes_max(Task::OnnxRun, &path, &Params::default()), 0);
    // What a file is shows at its two ends.
    let told = decoder.bytes_max(Task::TextClassify, &path, &Params::default());
    let held = decoder.decode(Task::TextClassify, &path, &Params::default()).unwrap().bytes();
    assert!(held <= told && told < 2 << 20, "{held} of {told}");
}

fn bytes_max(task: Task, path: &Path) -> u64 {
    Decoder::default().bytes_max(task, path, &Params::default())
}
