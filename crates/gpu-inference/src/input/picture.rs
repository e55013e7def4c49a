//! Pictures: PNG, JPEG, WebP, BMP, TIFF and GIF (its first frame) to upright RGB.
//!
//! The header is judged before any pixel is decoded, so that a small file cannot claim gigabytes. It reads no text.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::rc::Rc;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};
use memchr::memmem;

use super::error::{InputError, InputLimits};
use crate::size::Size;
use crate::text;

/// What is accepted, in the words of the error.
const WANTED: &str = "a PNG, JPEG, WebP, BMP, TIFF or GIF picture";
/// Most bytes that a decoder may use per allowed pixel: RGBA of 32-bit floats.
const DECODER_BYTES_PER_PIXEL: u64 = 16;
/// What decoders and the conversion to RGB hold of each pixel beside the decoded picture: JPEG's coefficients, and RGBA with RGB.
const COPIES_BYTES_PER_PIXEL: u64 = 13;
/// A larger JPEG is taken for cut off: ten times the largest picture of 100 megapixels at usual quality.
const JPEG_BYTES_MAX: u64 = 512 << 20;
/// Brightest value of a channel: transparent parts become paper.
const WHITE: u32 = 255;

/// A decoded picture.
#[derive(Debug, Clone)]
pub struct Picture {
    rgb: RgbImage,
}

impl Picture {
    /// The pixels, upright and without transparency.
    #[must_use]
    pub fn rgb(&self) -> &RgbImage {
        &self.rgb
    }
}

impl From<RgbImage> for Picture {
    fn from(rgb: RgbImage) -> Self {
        Self { rgb }
    }
}

/// Decodes a picture. `path` is only named in errors.
pub(crate) fn decode(file: File, path: &Path, limits: &InputLimits) -> Result<Picture, InputError> {
    let hit_end = Rc::new(Cell::new(false));
    let failed = |error: ImageError| decode_error(path, &error, &hit_end);
    let mut decoder = open(file, path, limits, &hit_end)?;
    // A picture whose EXIF block is damaged is still a picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    image.apply_orientation(orientation);
    Ok(flatten(image).into())
}

/// The most memory that decoding takes, by the picture's header.
pub(crate) fn bytes_max(file: File, path: &Path, limits: &InputLimits) -> Result<u64, InputError> {
    let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
    let file_bytes = file.metadata().map_err(unreadable)?.len();
    let decoder = open(file, path, limits, &Rc::default())?;
    let pixels = Size::from(decoder.dimensions()).pixels();
    Ok(2 * decoder.total_bytes() + pixels * COPIES_BYTES_PER_PIXEL + file_bytes.min(JPEG_BYTES_MAX))
}

/// Opens a picture whose header is within the limits.
fn open(
    file: File,
    path: &Path,
    limits: &InputLimits,
    hit_end: &Rc<Cell<bool>>,
) -> Result<impl ImageDecoder + use<>, InputError> {
    let wrong_kind = || InputError::WrongKind { path: path.to_owned(), wanted: WANTED };
    let failed = |error: ImageError| decode_error(path, &error, hit_end);
    let mut file = BufReader::new(file);
    let guess = ImageReader::new(&mut file).with_guessed_format();
    let format = guess.map_err(|error| failed(error.into()))?.format().ok_or_else(wrong_kind)?;
    if format == ImageFormat::Jpeg {
        check_jpeg_end(&mut file, path)?;
    }
    file.rewind().map_err(|error| failed(error.into()))?;
    let watched = Watched { file, hit_end: Rc::clone(hit_end) };
    let mut reader = ImageReader::with_format(watched, format);
    let mut allocations = Limits::default();
    allocations.max_alloc = Some(limits.image_pixels_max.saturating_mul(DECODER_BYTES_PER_PIXEL));
    reader.limits(allocations);
    let decoder = reader.into_decoder().map_err(failed)?;
    check_size(decoder.dimensions().into(), path, limits)?;
    Ok(decoder)
}

fn check_size(size: Size, path: &Path, limits: &InputLimits) -> Result<(), InputError> {
    let Size { width, height } = size;
    let (pixels_max, side_max) = (limits.image_pixels_max, limits.image_side_max);
    if size.pixels() > pixels_max || size.long_side() > side_max {
        let path = path.to_owned();
        return Err(InputError::TooLarge { path, width, height, pixels_max, side_max });
    }
    if size.pixels() == 0 {
        let problem = format!("it is {width} x {height} pixels");
        return Err(InputError::Damaged { path: path.to_owned(), problem });
    }
    Ok(())
}

/// The JPEG decoder fills a cut file up with grey without an error, so the end marker is searched for here: after the
/// first scan of the picture itself. A thumbnail before it is inside a segment and has an end of its own; what comes
/// after the end, such as a phone's short film, is not looked at.
fn check_jpeg_end(file: &mut BufReader<File>, path: &Path) -> Result<(), InputError> {
    const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];
    let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    file.rewind().map_err(unreadable)?;
    file.take(JPEG_BYTES_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
    match first_scan(&bytes).and_then(|scan| memmem::find(&bytes[scan..], &END_OF_IMAGE)) {
        Some(_) => Ok(()),
        None => Err(InputError::PictureTruncated { path: path.to_owned() }),
    }
}

/// Where the first scan begins: after the start-of-image marker, segments carry their length and are skipped whole.
fn first_scan(jpeg: &[u8]) -> Option<usize> {
    const START_OF_SCAN: u8 = 0xda;
    const FILL: u8 = 0xff;
    let mut offset = 2;
    loop {
        let marker = *jpeg.get(offset + 1)?;
        match marker {
            START_OF_SCAN => return Some(offset),
            FILL => offset += 1,
            _ => {
                let length = [*jpeg.get(offset + 2)?, *jpeg.get(offset + 3)?];
                offset += 2 + usize::from(u16::from_be_bytes(length)).max(2);
            }
        }
    }
}

fn decode_error(path: &Path, error: &ImageError, hit_end: &Cell<bool>) -> InputError {
    let path = path.to_owned();
    match error {
        _ if hit_end.get() => InputError::PictureTruncated { path },
        ImageError::Unsupported(problem) => {
            InputError::Unsupported { path, problem: text::said(problem) }
        }
        ImageError::IoError(io) => InputError::of_decoder(&path, error, Some(io)),
        _ => InputError::of_decoder(&path, error, None),
    }
}

/// Remembers that a decoder wanted more than the file has: each decoder says so in other words, or not at all.
struct Watched {
    file: BufReader<File>,
    hit_end: Rc<Cell<bool>>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hit_end.set(self.hit_end.get() || (read == 0 && !buffer.is_empty()));
        Ok(read)
    }
}

impl BufRead for Watched {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let bytes = self.file.fill_buf()?;
        self.hit_end.set(self.hit_end.get() || bytes.is_empty());
        Ok(bytes)
    }

    fn consume(&mut self, amount: usize) {
        self.file.consume(amount);
    }
}

impl Seek for Watched {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

/// Puts the picture on white paper: scanned and exported pages are transparent where the paper is.
fn flatten(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let rgba = image.into_rgba8();
    let mut rgb = RgbImage::new(rgba.width(), rgba.height());
    for (target, source) in rgb.pixels_mut().zip(rgba.pixels()) {
        let alpha = u32::from(source.0[3]);
        for (target, &source) in target.0.iter_mut().zip(&source.0) {
            let mixed = (u32::from(source) * alpha + WHITE * (WHITE - alpha)) / WHITE;
            *target = u8::try_from(mixed).expect("a mean of two bytes is a byte");
        }
    }
    rgb
}
