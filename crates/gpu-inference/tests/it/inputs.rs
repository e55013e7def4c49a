//! Good files of every kind, and each way in which a file can be bad.

use std::ffi::OsStr;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use gpu_inference::{
    Audio, Blame, Content, Decoder, Elements, InputError, InputLimits, Params, Prepared, Task,
    Tensor,
};
use image::{DynamicImage, ImageFormat, RgbImage, Rgba, RgbaImage};
use tempfile::TempDir;

use crate::support::{prepare, sample, wav};

/// A folder for one test's files.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

#[test]
fn what_is_no_readable_file_is_told_apart_for_both_tasks() {
    let files = Files::new();
    for task in [Task::VoiceTranscribe, Task::VisionOcr] {
        assert_eq!(code(task, &files.0.path().join("nothing")), "input.missing");
        assert_eq!(code(task, &files.write("a", b"").join("below")), "input.missing");
        assert_eq!(code(task, &files.write("empty.wav", b"")), "input.empty");
        assert_eq!(code(task, files.0.path()), "input.folder");
        assert_eq!(code(task, Path::new("/dev/zero")), "input.not_a_file");
        let text = "This is a text and not what its name says. ".repeat(100);
        assert_eq!(code(task, &files.write("text.wav", &text)), "input.wrong_kind");
        assert_eq!(code(task, &files.write("text.png", &text)), "input.wrong_kind");
    }
    assert_eq!(code(Task::VoiceTranscribe, &sample("page.png")), "input.wrong_kind");
    assert_eq!(code(Task::VisionOcr, &sample("beckett.wav")), "input.wrong_kind");
}

#[test]
fn a_text_is_read_without_the_space_around_it_and_has_a_limit_in_characters() {
    let files = Files::new();
    let read = |bytes: &[u8], limits: &InputLimits| {
        let path = files.write("text.txt", bytes);
        decode(Task::VoiceSynthesize, &path, limits).map_err(|error| error.code())
    };
    let limits = InputLimits { text_chars_max: 3, ..InputLimits::default() };
    let found = read("\u{feff} äöü\n".as_bytes(), &limits).unwrap();
    assert!(matches!(found.content(), Content::Text(text) if **text == *"äöü"), "{found:?}");
    for (bytes, code) in [
        (&b"four"[..], "input.text_too_long"),
        (&[b'x'; 100], "input.text_too_long"),
        (b" \n", "input.no_text"),
        (b"\xff\xfe", "input.no_text"),
        (b"a\0b", "input.wrong_kind"),
    ] {
        assert_eq!(read(bytes, &limits).unwrap_err(), code);
    }
    let limits = InputLimits { file_bytes_max: 3, ..InputLimits::default() };
    let path = files.write("bytes", [0; 4]);
    assert_eq!(decode(Task::OnnxRun, &path, &limits).unwrap_err().code(), "input.too_large");
}

#[test]
fn a_text_is_read_in_the_encoding_that_it_is_in() {
    let files = Files::new();
    let read = |bytes: &[u8]| {
        let path = files.write("text.txt", bytes);
        match prepare(Task::TextEmbed, &path).content() {
            Content::Text(text) => text.to_string(),
            other => panic!("no text: {other:?}"),
        }
    };
    let words = "Grüße aus Köln, 12 €";
    let utf_16 = |to: fn(u16) -> [u8; 2]| words.encode_utf16().flat_map(to).collect::<Vec<u8>>();
    let utf_32: Vec<u8> = words.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
    for bytes in [
        [b"\xef\xbb\xbf".as_slice(), words.as_bytes()].concat(),
        [b"\xff\xfe".as_slice(), &utf_16(u16::to_le_bytes)].concat(),
        [b"\xfe\xff".as_slice(), &utf_16(u16::to_be_bytes)].concat(),
        [b"\xff\xfe\0\0".as_slice(), &utf_32].concat(),
        utf_16(u16::to_le_bytes),
        utf_16(u16::to_be_bytes),
        b"Gr\xfc\xdfe aus K\xf6ln, 12 \x80".to_vec(),
        // As programs fill up a block, and as DOS ends a text.
        [words.as_bytes(), &[0; 40]].concat(),
        b"Gr\xfc\xdfe aus K\xf6ln, 12 \x80\r\n\x1a".to_vec(),
    ] {
        assert_eq!(read(&bytes), words, "{bytes:?}");
    }
    let japanese = b"\x93\xfa\x96{\x8c\xea\x82\xcc\x83e\x83L\x83X\x83g\x82\xc5\x82\xb7\x81B";
    assert_eq!(read(japanese), "日本語のテキストです。");
    // A text in UTF-8 of which one character was cut in two is not one of another encoding.
    assert_eq!(read(&words.as_bytes()[..words.len() - 1]), "Grüße aus Köln, 12 \u{fffd}");
}

#[test]
fn a_file_of_another_kind_is_named_with_what_to_do_for_the_task() {
    let files = Files::new();
    let pdf = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n".as_slice();
    let webm = b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm\0\0".as_slice();
    let docx = b"PK\x03\x04\x14\0\0\0\0\0word/document.xml".as_slice();
    let utf_16 = b"\xff\xfea\0 \0t\0e\0x\0t\0".as_slice();
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0".as_slice();
    for (task, bytes, found, hint) in [
        (Task::VoiceTranscribe, pdf, "a PDF document", "submit a recording"),
        (Task::VisionSegment, webm, "a WebM video or recording", "take pictures out of it"),
        (Task::VisionSegment, docx, "a Word document (docx)", "save it as PDF"),
        (Task::VoiceDenoise, b"GIF89a\x01\0\x01\0\0\xff\0", "a GIF picture", "`vision.ocr`"),
        (Task::VisionDetect, utf_16, "a text in UTF-16", "submit a picture"),
        (Task::VoiceConvert, b"plain words, no sound", "a text", "`voice.synthesize`"),
        (Task::VoiceSynthesize, pdf, "a PDF document", "pdftotext"),
        (Task::TextEmbed, docx, "a Word document (docx)", "plain text in UTF-8"),
        (Task::TextEmbed, webm, "a WebM video or recording", "`voice.transcribe`"),
        (Task::OnnxRun, utf_16, "a text in UTF-16", "numpy.savez"),
        (Task::OnnxRun, gzip, "a gzip archive", "unpack it"),
    ] {
        let error = decode(task, &files.write("x", bytes), &InputLimits::default()).unwrap_err();
        assert_eq!(error.code(), "input.wrong_kind", "{task}: {error}");
        assert!(error.to_string().contains(&format!(" is {found}, not ")), "{error}");
        assert!(error.hint(task).contains(hint), "{task}: {}", error.hint(task));
    }
}

#[test]
fn a_file_among_the_params_is_decoded_like_the_input() {
    let files = Files::new();
    let path = files.write("a.wav", wav(22_050, &[1000; 22_050]));
    let given = serde_json::from_str(r#"{"reference": "file:///elsewhere.wav"}"#).unwrap();
    let mut params = Params::read(Task::VoiceConvert, &given).unwrap();
    params.set_file("reference", path.clone());
    let limits = InputLimits::default();
    let prepared = gpu_inference::decode(Task::VoiceConvert, &path, &params, &limits).unwrap();
    let Some(Content::Audio(reference)) = prepared.attached("reference") else { panic!() };
    assert_eq!((reference.rate_hz(), reference.samples().len()), (22_050, 22_050));
    params.set_file("reference", files.write("b.wav", "no recording, whatever its name says"));
    let error = gpu_inference::decode(Task::VoiceConvert, &path, &params, &limits).unwrap_err();
    assert_eq!(error.code(), "input.wrong_kind");
}

#[test]
fn a_path_need_not_be_text() {
    let files = Files::new();
    let name = OsStr::from_bytes(b"caf\xe9 \xff.wav");
    let path = files.write(name, wav(16_000, &[1000; 16_000]));
    assert_eq!(audio(&path).duration().as_millis(), 1000);
}

#[test]
fn a_truncated_recording_says_what_was_expected_and_what_was_found() {
    let files = Files::new();
    let whole = wav(16_000, &[1000; 16_000]);
    let path = files.write("cut.wav", &whole[..whole.len() - 8_000]);
    let error = decode(Task::VoiceTranscribe, &path, &InputLimits::default()).unwrap_err();
    assert_eq!(error.code(), "input.truncated");
    let said = error.to_string();
    assert!(said.contains("16000 frames") && said.contains("found 12000"), "{said}");
    assert!(!error.hint(Task::VoiceTranscribe).is_empty());
    assert_eq!(
        code(Task::VoiceTranscribe, &files.write("head.wav", &whole[..30])),
        "input.damaged"
    );
}

#[test]
fn a_recording_without_samples_or_with_an_impossible_rate_is_refused() {
    let files = Files::new();
    let task = Task::VoiceTranscribe;
    assert_eq!(code(task, &files.write("none.wav", wav(16_000, &[]))), "input.no_samples");
    let impossible = wav(4_294_967, &[0; 100]);
    assert_eq!(code(task, &files.write("rate.wav", impossible)), "input.unsupported");
}

#[test]
fn a_long_recording_is_refused_by_its_header_where_the_file_bears_it_out_or_while_decoding() {
    let files = Files::new();
    let limits = InputLimits { audio_seconds_max: 2, ..InputLimits::default() };
    let rejected = |path: &Path| decode(Task::VoiceTranscribe, path, &limits).unwrap_err().code();
    assert_eq!(rejected(&files.write("long.wav", wav(16_000, &[0; 48_000]))), "input.too_long");
    // The samples that it announces are not there: it is cut, and not long.
    let mut announced = wav(16_000, &[0; 1_000]);
    announced[4..8].copy_from_slice(&1_000_036_u32.to_le_bytes());
    announced[40..44].copy_from_slice(&1_000_000_u32.to_le_bytes());
    assert_eq!(rejected(&files.write("header.wav", announced)), "input.truncated");
    // 2^32 - 1 means "not known yet" to programs that write to a pipe.
    let mut unknown = wav(16_000, &[0; 48_000]);
    unknown[4..8].copy_from_slice(&[0xff; 4]);
    unknown[40..44].copy_from_slice(&[0xff; 4]);
    let path = files.write("lying.wav", unknown);
    assert_eq!(rejected(&path), "input.too_long");
    assert_eq!(audio(&path).duration().as_secs(), 3);
}

#[test]
fn flac_and_mp3_sound_like_the_wav_that_they_were_made_from_and_are_checked_too() {
    let files = Files::new();
    let wav = sample("beckett.wav");
    let original = audio(&wav);
    let (flac, mp3) = (files.0.path().join("b.flac"), files.0.path().join("b.mp3"));
    encode(Command::new("flac").args(["--silent", "-o"]).arg(&flac).arg(&wav));
    encode(Command::new("lame").args(["--quiet", "-b", "128"]).arg(&wav).arg(&mp3));
    assert_eq!(audio(&flac).samples(), original.samples());
    let lossy = audio(&mp3);
    assert_eq!(lossy.samples().len(), original.samples().len());
    let likeness = likeness(lossy.samples(), original.samples());
    assert!(likeness > 0.9, "{likeness}");
    for path in [flac, mp3] {
        let bytes = std::fs::read(&path).unwrap();
        let cut = files.write("cut", &bytes[..bytes.len() * 2 / 3]);
        assert_eq!(code(Task::VoiceTranscribe, &cut), "input.truncated", "{}", path.display());
    }
}

#[test]
fn pictures_of_each_kind_are_read_and_a_cut_one_is_truncated() {
    let files = Files::new();
    let drawn = RgbImage::from_fn(300, 200, |x, y| {
        image::Rgb([u8::from(x % 7 < 3) * 200, u8::try_from(y).unwrap(), 90])
    });
    let kinds = [
        (ImageFormat::Png, 0),
        (ImageFormat::Bmp, 0),
        (ImageFormat::Tiff, 0),
        (ImageFormat::WebP, 0),
        (ImageFormat::Jpeg, 60),
        (ImageFormat::Gif, 60),
    ];
    for (kind, tolerance) in kinds {
        let bytes = encoded(&DynamicImage::ImageRgb8(drawn.clone()), kind);
        let found = picture(&files.write("whole", &bytes));
        assert_eq!(found.dimensions(), (300, 200), "{kind:?}");
        let pairs = found.as_raw().iter().zip(drawn.as_raw());
        let difference = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(difference <= tolerance, "{kind:?}: off by {difference}");
        let cut = files.write("cut", &bytes[..bytes.len() / 2]);
        assert_eq!(code(Task::VisionOcr, &cut), "input.truncated", "{kind:?}");
    }
}

#[test]
fn a_tiny_file_that_claims_to_be_huge_is_refused_before_it_costs_memory() {
    let files = Files::new();
    let mut bytes = encoded(&DynamicImage::new_rgb8(1, 1), ImageFormat::Bmp);
    bytes[18..22].copy_from_slice(&30_000_u32.to_le_bytes());
    bytes[22..26].copy_from_slice(&30_000_u32.to_le_bytes());
    let path = files.write("huge.bmp", bytes);
    let error = decode(Task::VisionOcr, &path, &InputLimits::default()).unwrap_err();
    assert_eq!(error.code(), "input.too_large");
    assert!(error.to_string().contains("30000 x 30000"), "{error}");
    let limits = InputLimits { image_side_max: 100, ..InputLimits::default() };
    let long = files.write("long.png", encoded(&DynamicImage::new_rgb8(101, 1), ImageFormat::Png));
    assert_eq!(decode(Task::VisionOcr, &long, &limits).unwrap_err().code(), "input.too_large");
}

#[test]
fn a_picture_is_turned_as_its_camera_says() {
    let files = Files::new();
    let jpeg = encoded(&DynamicImage::new_rgb8(40, 20), ImageFormat::Jpeg);
    // An EXIF block of one entry: orientation (0x0112) = 6, a quarter turn clockwise.
    let exif =
        b"\xff\xe1\0\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let turned = [&jpeg[..2], exif, &jpeg[2..]].concat();
    assert_eq!(picture(&files.write("turned.jpg", turned)).dimensions(), (20, 40));
    // A phone's photo with a short film behind it, and one in which a thumbnail has an end of its own.
    let film = [&jpeg[..], &[0xff, 0xda, 0, 1, 2, 3]].concat();
    assert_eq!(picture(&files.write("film.jpg", film)).dimensions(), (40, 20));
    let thumbnail =
        [&jpeg[..2], &[0xff, 0xe2, 0, 4, 0xff, 0xd9], &jpeg[2..jpeg.len() - 8]].concat();
    let error =
        decode(Task::VisionOcr, &files.write("cut.jpg", thumbnail), &InputLimits::default());
    assert_eq!(error.unwrap_err().code(), "input.truncated");
    assert_eq!(picture(&files.write("plain.jpg", jpeg)).dimensions(), (40, 20));
}

#[test]
fn what_is_transparent_is_paper() {
    let files = Files::new();
    let clear = RgbaImage::from_fn(2, 1, |x, _| Rgba([0, 0, 0, if x == 0 { 0 } else { 255 }]));
    let bytes = encoded(&DynamicImage::ImageRgba8(clear), ImageFormat::Png);
    assert_eq!(picture(&files.write("clear.png", bytes)).as_raw(), &[255, 255, 255, 0, 0, 0]);
}

#[test]
fn what_decoding_takes_is_told_before_and_what_it_holds_after() {
    let files = Files::new();
    let grey = DynamicImage::new_luma8(300, 200);
    let clear = DynamicImage::new_rgba16(300, 200);
    let tensor = Tensor::new(vec![1_000], Elements::U8(vec![7; 1_000])).unwrap();
    let json = format!(
        r#"{{"x": {{"dtype": "float64", "shape": [500], "data": [{}1]}}}}"#,
        "1,".repeat(499)
    );
    let inputs = [
        (Task::VoiceTranscribe, sample("beckett.wav")),
        (Task::VoiceConvert, files.write("8k.wav", wav(8_000, &[9; 80_000]))),
        (Task::VisionOcr, sample("page.png")),
        (Task::VisionEmbed, files.write("grey.png", encoded(&grey, ImageFormat::Png))),
        (Task::VisionEmbed, files.write("clear.tiff", encoded(&clear, ImageFormat::Tiff))),
        (Task::VisionDetect, files.write("photo.jpg", encoded(&grey, ImageFormat::Jpeg))),
        (Task::VisionEmbed, files.write("text.txt", "a cat")),
        (Task::TextClassify, sample("page.png")),
        (Task::OnnxRun, files.write("x.npy", tensor.to_npy())),
        (Task::OnnxRun, files.write("x.json", json)),
    ];
    let decoder = Decoder::default();
    for (task, path) in inputs {
        let held = prepare(task, &path).bytes();
        let told = decoder.bytes_max(task, &path, &Params::default());
        let shown = path.display();
        assert!(held > 0 && told >= held, "{shown}: {held} of {told}");
        // Padding aside, what is told is not so much that a budget would starve.
        assert!(told <= 12 * held + (1 << 20), "{shown}: {held} of {told}");
    }
}

#[test]
fn a_cancelled_job_is_decoded_no_further() {
    let files = Files::new();
    let path = files.write("long.wav", wav(16_000, &[9; 16_000]));
    let decoder = Decoder::default();
    decoder.cancel.cancel();
    let error = decoder.decode(Task::VoiceTranscribe, &path, &Params::default()).unwrap_err();
    assert!(matches!(error, InputError::Cancelled), "{error}");
    assert_eq!(error.blame(), Blame::Box, "it says nothing about the input");
}

fn decode(task: Task, path: &Path, limits: &InputLimits) -> Result<Prepared, InputError> {
    gpu_inference::decode(task, path, &Params::default(), limits)
}

fn code(task: Task, path: &Path) -> &'static str {
    let result = decode(task, path, &InputLimits::default());
    result.map(|_| "decoded").unwrap_or_else(|error| error.code())
}

fn audio(path: &Path) -> Audio {
    match prepare(Task::VoiceTranscribe, path).content() {
        Content::Audio(audio) => audio.clone(),
        other => panic!("not a recording: {other:?}"),
    }
}

fn picture(path: &Path) -> RgbImage {
    match prepare(Task::VisionOcr, path).content() {
        Content::Picture(picture) => picture.rgb().clone(),
        other => panic!("not a picture: {other:?}"),
    }
}

/// Normalised correlation: 1 for the same sound, also if one is quieter; about 0 if one is shifted.
fn likeness(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn encoded(picture: &DynamicImage, kind: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, kind).unwrap();
    bytes.into_inner()
}

fn encode(command: &mut Command) {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status();
    let status = status.unwrap_or_else(|error| panic!("{program}: {error}: apt install {program}"));
    assert!(status.success(), "{program}: {status}");
}
