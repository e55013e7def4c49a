//! Pictures: PNG, JPEG, WebP, BMP, TIFF and GIF (its first frame) to upright RGB.
//!
//! The header is judged before any pixel is decoded, so that a small file cannot claim gigabytes. It reads no text.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::rc::Rc;

use image::metadata::Orientation;
use image::{
    ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage,
};
use memchr::memchr;

use super::error::{InputError, InputLimits};
use crate::size::Size;
use crate::text;

/// What is accepted, in the words of the error.
const WANTED: &str = "a PNG, JPEG, WebP, BMP, TIFF or GIF picture";
/// What a decoder holds of each pixel beside the decoded picture: JPEG's coefficients are the most.
const DECODER_BYTES_PER_PIXEL: u64 = 6;
/// What the conversion to RGB holds: from other colours directly, from transparent ones by way of RGBA.
const RGB_BYTES_PER_PIXEL: u64 = 3;
const RGBA_BYTES_PER_PIXEL: u64 = 4;
/// Most of a file whose decoder holds it whole: more than 100 megapixels take at the best quality.
const JPEG_BYTES_MAX: u64 = 256 << 20;
/// Markers of JPEG, after a byte of 0xff: two that stand for themselves in the picture's data, and those with no content.
const JPEG_MARKER: u8 = 0xff;
const JPEG_STUFFED: u8 = 0x00;
const JPEG_TEMPORARY: u8 = 0x01;
const JPEG_RESTART_FIRST: u8 = 0xd0;
const JPEG_RESTART_LAST: u8 = 0xd7;
const JPEG_END: u8 = 0xd9;
/// Most memory for what comes before the pixels: colour profiles, compressed texts, tables.
const HEADER_BYTES_MAX: u64 = 64 << 20;
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
    let mut decoder = open(file, path, limits, &Rc::default())?;
    let (pixels, decoded) = (Size::from(decoder.dimensions()).pixels(), decoder.total_bytes());
    let turned = match decoder.orientation() {
        Ok(Orientation::NoTransforms) => 0,
        _ => decoded,
    };
    let color = decoder.color_type();
    let copies = match color {
        ColorType::Rgb8 => 0,
        _ if color.has_alpha() => RGBA_BYTES_PER_PIXEL + RGB_BYTES_PER_PIXEL,
        _ => RGB_BYTES_PER_PIXEL,
    };
    let own = pixels * (copies + DECODER_BYTES_PER_PIXEL);
    Ok(decoded + turned + own + file_bytes.min(JPEG_BYTES_MAX))
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
    let bytes_left = match format {
        ImageFormat::Jpeg => jpeg_end(&mut file, path)?,
        ImageFormat::WebP => JPEG_BYTES_MAX,
        _ => u64::MAX,
    };
    file.rewind().map_err(|error| failed(error.into()))?;
    let watched = Watched { file, bytes_left, hit_end: Rc::clone(hit_end) };
    let mut reader = ImageReader::with_format(watched, format);
    let memory = |bytes| {
        let mut memory = Limits::default();
        memory.max_alloc = Some(bytes);
        memory
    };
    reader.limits(memory(HEADER_BYTES_MAX));
    let mut decoder = reader.into_decoder().map_err(failed)?;
    check_size(decoder.dimensions().into(), path, limits)?;
    let pixels = decoder.total_bytes();
    decoder.set_limits(memory(HEADER_BYTES_MAX + 2 * pixels)).map_err(failed)?;
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

/// Where a JPEG ends, or the error for one without an end: the decoder fills a cut file up with grey and says nothing.
///
/// Segments carry their length and are skipped whole, so that the end of a thumbnail inside one does not count. What comes after the end,
/// such as a phone's short film, is not read.
fn jpeg_end(file: &mut BufReader<File>, path: &Path) -> Result<u64, InputError> {
    let unreadable = |source| InputError::Unreadable { path: path.to_owned(), source };
    // Behind the marker of the start, which told the format.
    file.seek(SeekFrom::Start(2)).map_err(unreadable)?;
    loop {
        match next_marker(file).map_err(unreadable)? {
            Some(JPEG_END) => return file.stream_position().map_err(unreadable),
            Some(JPEG_STUFFED | JPEG_TEMPORARY | JPEG_RESTART_FIRST..=JPEG_RESTART_LAST) => {}
            Some(_) => {
                let mut length = [0; 2];
                match file.read_exact(&mut length) {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                    read => read.map_err(unreadable)?,
                }
                let content = u16::from_be_bytes(length).saturating_sub(2);
                file.seek_relative(content.into()).map_err(unreadable)?;
            }
            None if file.stream_position().map_err(unreadable)? > JPEG_BYTES_MAX => {
                let (path, bytes_max) = (path.to_owned(), JPEG_BYTES_MAX);
                return Err(InputError::FileTooLarge { path, bytes_max });
            }
            None => return Err(InputError::PictureTruncated { path: path.to_owned() }),
        }
    }
}

/// The byte after the next `0xff`, which is a marker or says that it is none; `None` at the end, or beyond [`JPEG_BYTES_MAX`].
fn next_marker(file: &mut BufReader<File>) -> io::Result<Option<u8>> {
    let mut marker_begun = false;
    loop {
        if file.stream_position()? > JPEG_BYTES_MAX {
            return Ok(None);
        }
        let bytes = file.fill_buf()?;
        let Some(&first) = bytes.first() else { return Ok(None) };
        if marker_begun && first != JPEG_MARKER {
            file.consume(1);
            return Ok(Some(first));
        }
        let before = memchr(JPEG_MARKER, bytes);
        let used = before.map_or(bytes.len(), |before| before + 1);
        file.consume(used);
        marker_begun = before.is_some();
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
    /// What may still be read.
    bytes_left: u64,
    hit_end: Rc<Cell<bool>>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.by_ref().take(self.bytes_left).read(buffer)?;
        self.bytes_left -= read as u64;
        let ended = read == 0 && !buffer.is_empty() && self.bytes_left > 0;
        self.hit_end.set(self.hit_end.get() || ended);
        Ok(read)
    }
}

impl BufRead for Watched {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let bytes = self.file.fill_buf()?;
        self.hit_end.set(self.hit_end.get() || bytes.is_empty());
        let left = usize::try_from(self.bytes_left).unwrap_or(usize::MAX);
        Ok(&bytes[..bytes.len().min(left)])
    }

    fn consume(&mut self, amount: usize) {
        self.bytes_left -= amount as u64;
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
