//! How a PNG is turned where its EXIF block lies in a text, as ImageMagick writes it: `Raw profile type exif`, in hexadecimal digits.

use std::io::{BufRead, Read, Seek, SeekFrom};

use flate2::read::ZlibDecoder;
use image::metadata::Orientation;

use super::EXIF_NAME;

/// What a PNG begins with, and the rest of a part behind its content: a checksum.
const MAGIC_BYTES: u64 = 8;
const CHECKSUM_BYTES: i64 = 4;
/// Most parts that are looked at, and most bytes of one and of what is packed in it.
const CHUNKS_MAX: usize = 10_000;
const PROFILE_BYTES_MAX: u64 = 1 << 20;
/// Names of the text.
const NAMES: [&[u8]; 2] = [b"Raw profile type exif", b"Raw profile type APP1"];

/// The orientation, if there is such a text. What is wrong with it is the text's matter and not the picture's.
pub(super) fn orientation(file: &mut (impl BufRead + Seek)) -> Option<Orientation> {
    file.seek(SeekFrom::Start(MAGIC_BYTES)).ok()?;
    for _ in 0..CHUNKS_MAX {
        let mut head = [0; 8];
        file.read_exact(&mut head).ok()?;
        let (length, kind) = head.split_at(4);
        let length = u32::from_be_bytes(length.try_into().ok()?);
        let is_text = matches!(kind, b"tEXt" | b"zTXt") && u64::from(length) <= PROFILE_BYTES_MAX;
        if !is_text {
            file.seek(SeekFrom::Current(i64::from(length) + CHECKSUM_BYTES)).ok()?;
            continue;
        }
        let mut content = vec![0; length as usize];
        file.read_exact(&mut content).ok()?;
        file.seek(SeekFrom::Current(CHECKSUM_BYTES)).ok()?;
        let found = profile(kind, &content).and_then(|exif| {
            Orientation::from_exif_chunk(exif.strip_prefix(EXIF_NAME).unwrap_or(&exif))
        });
        if found.is_some() {
            return found;
        }
    }
    None
}

/// The EXIF block in a text.
fn profile(kind: &[u8], content: &[u8]) -> Option<Vec<u8>> {
    let name = NAMES.iter().find(|name| content.starts_with(name))?;
    let text = content[name.len()..].strip_prefix(b"\0")?;
    let text = if kind == b"zTXt" {
        let mut unpacked = Vec::new();
        ZlibDecoder::new(text.strip_prefix(b"\0")?)
            .take(PROFILE_BYTES_MAX)
            .read_to_end(&mut unpacked)
            .ok()?;
        unpacked
    } else {
        text.to_vec()
    };
    // A line with a name, one with the length, then the digits in lines.
    let text = String::from_utf8(text).ok()?;
    let mut words = text.split_ascii_whitespace();
    let _name = words.next()?;
    let length: usize = words.next()?.parse().ok()?;
    let digits: Vec<u8> = words.flat_map(str::bytes).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks_exact(2).take(length).map(byte).collect()
}
