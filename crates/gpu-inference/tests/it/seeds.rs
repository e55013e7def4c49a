//! Small files of every kind, where the fuzz targets begin: each is decoded as it is.
//!
//! `GPUCTL_SEEDS=FOLDER cargo test -p gpu-inference --test it -- seeds` writes them, a folder for each target; `scripts/fuzz.sh` does so.

use std::path::PathBuf;

use gpu_inference::{Decoder, Params, Task};
use image::{GrayImage, ImageFormat, Rgb, RgbImage, imageops};
use npyz::WriterBuilder;

use crate::pictures::made::{
    self, BLACK_IS_ZERO, Layout, PALETTE, TiffPage, WHITE_IS_ZERO, YCBCR, tag,
};
use crate::pictures::progressive::progressive_jpeg;
use crate::{aac, mutations, streams};

/// The tasks that read them, the fuzz target, and the content.
type Seed = (Task, &'static str, Vec<u8>);

#[test]
fn every_seed_of_the_fuzz_targets_is_decoded() {
    let written = std::env::var_os("GPUCTL_SEEDS").map(PathBuf::from);
    let scratch = tempfile::tempdir().unwrap();
    let folder = written.as_deref().unwrap_or(scratch.path());
    for (number, (task, target, bytes)) in
        recordings().into_iter().chain(pictures()).chain(numbers()).chain(texts()).enumerate()
    {
        std::fs::create_dir_all(folder.join(target)).unwrap();
        let path = folder.join(target).join(number.to_string());
        std::fs::write(&path, bytes).unwrap();
        let decoded = Decoder::default().decode(task, &path, &Params::default());
        decoded.unwrap_or_else(|error| panic!("{target}, seed {number}: {error}"));
    }
}

fn recordings() -> Vec<Seed> {
    let target = |name: &str| match name {
        "aiff" => "aiff",
        "au" => "au",
        "mp3" => "mp3",
        "flac" => "flac",
        "ogg" => "ogg",
        "webm" => "matroska",
        _ => "wav",
    };
    let files = mutations::files().into_iter().map(|(name, bytes)| (target(name), bytes));
    let silence = streams::flac(&crate::support::wav(8_000, &[0; 4_000]));
    files
        .chain([("flac", silence), ("mp4", aac::recording(8)), ("mp4", aac::in_fragments(20))])
        .map(|(target, bytes)| (Task::VoiceTranscribe, target, bytes))
        .collect()
}

fn pictures() -> Vec<Seed> {
    let picture = RgbImage::from_fn(40, 24, |x, y| {
        let byte = |value: u32| u8::try_from(value % 256).unwrap();
        Rgb([byte(x * 6), byte(y * 10), byte(x * y)])
    });
    let coded = |format: ImageFormat, target: &'static str| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        (target, bytes.into_inner())
    };
    let plain = [
        coded(ImageFormat::Png, "png"),
        ("png", made::png(imageops::grayscale(&picture))),
        coded(ImageFormat::Gif, "gif"),
        coded(ImageFormat::Bmp, "bmp"),
        coded(ImageFormat::WebP, "webp"),
        ("jpeg", made::jpeg(&picture)),
        ("jpeg", made::restarted_jpeg(&picture).0),
        ("jpeg", progressive_jpeg(&picture).0),
        ("heif", made::heic(&picture)),
        ("pdf", made::pdf(&["x"], (30, 20))),
    ];
    let tiffs = tiffs(&picture).into_iter().map(|bytes| ("tiff", bytes));
    plain.into_iter().chain(tiffs).map(|(target, bytes)| (Task::VisionOcr, target, bytes)).collect()
}

fn tiffs(picture: &RgbImage) -> Vec<Vec<u8>> {
    let (size, whole) = (picture.dimensions(), TiffPage::of(picture));
    let grey: GrayImage = imageops::grayscale(picture);
    let of =
        |bits: u16, colours: u16, pixels: Vec<u8>| TiffPage::new(size, (1, bits), colours, pixels);
    let shades: Vec<u16> = (0..3).flat_map(|_| (0..16).map(|index| index * 4_369)).collect();
    let black_and_white = RgbImage::from_fn(size.0, size.1, |x, y| {
        Rgb([if x / 5 % 2 == y / 5 % 2 { 255 } else { 0 }; 3])
    });
    let fax = |kind: u16, marked: bool| {
        let code = made::huffman(&black_and_white, marked);
        of(1, WHITE_IS_ZERO, code).with(tag::COMPRESSION, &[kind])
    };
    let sampled = |code| TiffPage::new(size, (3, 8), YCBCR, code).with(tag::SUBSAMPLING, &[1, 1]);
    let pages = [
        whole.clone(),
        whole.clone().in_planes_and_tiles(picture, (16, 16)),
        of(8, BLACK_IS_ZERO, grey.into_raw()),
        of(4, PALETTE, made::packed(picture, 4)).with(tag::PALETTE, &shades),
        of(1, BLACK_IS_ZERO, made::packed(picture, 1)),
        of(12, BLACK_IS_ZERO, vec![0x5a; 40 * 24 * 3 / 2]),
        of(32, BLACK_IS_ZERO, vec![0x5a; 40 * 24 * 4]),
        sampled(made::ycbcr(picture)),
        sampled(made::jpeg(picture)).with(tag::COMPRESSION, &[7]),
        fax(2, false),
        fax(3, true).with(tag::FAX_OPTIONS, &[0]),
    ];
    let mut files: Vec<_> =
        pages.iter().map(|page| made::tiff(Layout::Little, std::slice::from_ref(page))).collect();
    files.push(made::tiff(Layout::Big, &pages[..2]));
    files.push(made::tiff(Layout::Long, &pages[2..4]));
    files
}

/// Arrays of NumPy, alone and in archives, and the same as JSON.
fn numbers() -> Vec<Seed> {
    let npy = {
        let mut bytes = Vec::new();
        let options = npyz::WriteOptions::new().default_dtype().shape(&[2, 3]);
        let mut writer = options.writer(&mut bytes).begin_nd().unwrap();
        writer.extend([1.5_f32, 2.0, 3.0, -4.0, 5.0, 6.0]).unwrap();
        writer.finish().unwrap();
        bytes
    };
    let zip = |method: zip::CompressionMethod| {
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for name in ["a.npy", "b.npy"] {
            let options = zip::write::SimpleFileOptions::default().compression_method(method);
            archive.start_file(name, options).unwrap();
            std::io::Write::write_all(&mut archive, &npy).unwrap();
        }
        archive.finish().unwrap().into_inner()
    };
    let json = br#"{"a": {"dtype": "int64", "shape": [1, 3], "data": [1, -2, 3]},
        "b": {"dtype": "float32", "shape": [2], "data": [1.5, 1e3]}, "c": {"dtype": "bool", "shape": [], "data": [true]}}"#;
    [
        ("npz", zip(zip::CompressionMethod::Stored)),
        ("npz", zip(zip::CompressionMethod::Deflated)),
        ("npy", npy.clone()),
        ("json", json.to_vec()),
    ]
    .map(|(target, bytes)| (Task::OnnxRun, target, bytes))
    .into()
}

fn texts() -> Vec<Seed> {
    let said = "Straße, café, 東京.";
    let utf_16 = |bytes: fn(u16) -> [u8; 2]| said.encode_utf16().flat_map(bytes).collect();
    let shift_jis = b"\x82\xb1\x82\xea\x82\xcd\x93\xfa\x96\x7b\x8c\xea\x82\xcc\x95\xb6\x8f\xcd";
    [
        said.as_bytes().to_vec(),
        [b"\xff\xfe".to_vec(), utf_16(u16::to_le_bytes)].concat(),
        utf_16(u16::to_be_bytes),
        shift_jis.to_vec(),
        b"caf\xe9 cr\xe8me and zeroes\0\0".to_vec(),
    ]
    .map(|bytes| (Task::TextEmbed, "text", bytes))
    .into()
}
