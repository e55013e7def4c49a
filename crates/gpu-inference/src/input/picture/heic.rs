//! HEIC, as phones take photographs, and AVIF: pictures in a container of boxes.
//!
//! The crate `heifer` decodes HEIC. It turns a picture as the container says; phones also write EXIF, which must not turn it again. AVIF,
//! and what `heifer` does not know, is converted by a program, where it is installed.

use heifer::{Error as HeifError, Options};
use image::{DynamicImage, RgbImage, RgbaImage};
use memchr::memmem;

use super::{Problem, Source, paper, programs};
use crate::size::Size;

/// Kinds of pictures that a container may name.
const AVIF: [&[u8; 4]; 2] = [b"avif", b"avis"];
const HEIF: [&[u8; 4]; 8] =
    [b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"];
/// A box's length and kind.
const BOX_HEAD: usize = 8;

/// How the pixels of a container are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Heic,
    Avif,
}

/// What a file holds that begins so, if it is such a container.
pub(super) fn begins(head: &[u8]) -> Option<Coding> {
    let length = u32::from_be_bytes(head.first_chunk().copied()?) as usize;
    let kinds = head.get(BOX_HEAD..length.min(head.len()))?;
    if &head[4..BOX_HEAD] != b"ftyp" {
        return None;
    }
    // The kind, a version, then further kinds.
    let names = |kind: &&[u8; 4]| kinds.chunks_exact(4).any(|name| name == kind.as_slice());
    if AVIF.iter().any(names) {
        Some(Coding::Avif)
    } else {
        HEIF.iter().any(names).then_some(Coding::Heic)
    }
}

/// The largest size that the container announces.
pub(super) fn size(bytes: &[u8]) -> Result<Size, Problem> {
    /// A box of its size: the kind, four bytes of version and flags, width, height.
    const SIZE: &[u8] = b"ispe\0\0\0\0";
    let sizes = memmem::find_iter(bytes, SIZE).filter_map(|at| {
        let (width, rest) = bytes[at + SIZE.len()..].split_first_chunk()?;
        let height = rest.first_chunk()?;
        Some(Size { width: u32::from_be_bytes(*width), height: u32::from_be_bytes(*height) })
    });
    let largest = sizes.max_by_key(|size| size.pixels());
    largest.ok_or_else(|| if is_cut(bytes) { Problem::Truncated } else { unannounced() })
}

fn unannounced() -> Problem {
    Problem::damaged("it announces no size")
}

pub(super) fn decode(source: &mut Source<'_>, coding: Coding) -> Result<RgbImage, Problem> {
    let bytes = source.whole()?;
    source.check(size(&bytes)?)?;
    by_any(source, &bytes, coding).map_err(|problem| match problem {
        Problem::Damaged(_) | Problem::Unsupported(_) if is_cut(&bytes) => Problem::Truncated,
        problem => problem,
    })
}

fn by_any(source: &mut Source<'_>, bytes: &[u8], coding: Coding) -> Result<RgbImage, Problem> {
    let missing = match coding {
        Coding::Heic => match by_heifer(bytes, source.limits.image_pixels_max) {
            Err(Problem::Unsupported(problem)) => problem,
            decoded => return decoded,
        },
        Coding::Avif => "an AVIF picture".to_owned(),
    };
    programs::picture(source, &missing)
}

fn by_heifer(bytes: &[u8], pixels_max: u64) -> Result<RgbImage, Problem> {
    let options = Options { max_threads: 1, max_pixels: pixels_max };
    let decoded = match heifer::decode_srgb_rgba8(bytes, &options) {
        // Colours that it cannot convert are shown as they are.
        Err(HeifError::Unsupported(_)) => heifer::decode_rgba8(bytes, &options),
        decoded => decoded,
    };
    let picture = decoded?;
    let rgba = RgbaImage::from_raw(picture.width, picture.height, picture.data);
    let rgba = rgba.ok_or(Problem::damaged("its pixels are not as many as its header says"))?;
    Ok(paper::flatten(DynamicImage::from(rgba)))
}

/// Whether one of the outermost boxes is longer than the file.
fn is_cut(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(head) = rest.first_chunk::<4>() {
        let length = match u32::from_be_bytes(*head) {
            // Up to the end of the file, and in 64 bits behind the kind.
            0 => return false,
            1 => match rest.get(BOX_HEAD..).and_then(<[u8]>::first_chunk) {
                Some(long) => usize::try_from(u64::from_be_bytes(*long)).unwrap_or(usize::MAX),
                None => return true,
            },
            length => length as usize,
        };
        if length < BOX_HEAD {
            return false;
        }
        match rest.get(length..) {
            Some(behind) => rest = behind,
            None => return true,
        }
    }
    false
}

impl From<HeifError> for Problem {
    fn from(error: HeifError) -> Self {
        let said = crate::text::said(&error);
        match error {
            HeifError::Unsupported(_) => Self::Unsupported(said),
            _ => Self::Damaged(said),
        }
    }
}
