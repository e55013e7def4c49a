//! PNG, WebP, BMP and GIF: one picture in a file, as the crate `image` decodes it.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::rc::Rc;

use image::codecs::gif::GifDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{
    AnimationDecoder, ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader,
    Limits, RgbImage,
};

use super::patched::Patched;
use super::{EXIF_NAME, Problem, RGB_BYTES, Source, WHOLE_BYTES_MAX, bmp, png, upright};
use crate::size::Size;

/// What a decoder holds of each pixel beside the decoded picture.
const DECODER_BYTES_PER_PIXEL: u64 = 6;
/// What the conversion holds of transparent pixels.
const RGBA_BYTES: u64 = 4;
/// What looking for a later frame holds of each pixel: the canvas, a frame, and its picture.
const FRAME_BYTES: u64 = 2 * RGBA_BYTES + RGB_BYTES;
/// Most memory for what comes before the pixels: colour profiles, compressed texts, tables.
const HEADER_BYTES_MAX: u64 = 64 << 20;
/// Frames of what moves that are looked at until one shows something.
const FRAMES_MAX: usize = 100;
/// The last part of a PNG: it says nothing, and many a file lacks it.
const PNG_END: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";

pub(super) fn decode(source: &mut Source<'_>, format: ImageFormat) -> Result<RgbImage, Problem> {
    let hit_end = Rc::new(Cell::new(false));
    let failed = |error: ImageError| problem(error, &hit_end);
    let in_text =
        if format == ImageFormat::Png { png::orientation(&mut source.file) } else { None };
    let mut decoder = open(source, format, &hit_end)?;
    let told = exif_orientation(&mut decoder).or(in_text);
    let orientation = told.unwrap_or(Orientation::NoTransforms);
    let picture = upright(DynamicImage::from_decoder(decoder).map_err(failed)?, orientation);
    if !is_blank(&picture) {
        return Ok(picture);
    }
    Ok(later_frame(source, format, orientation).unwrap_or(picture))
}

/// Whether it shows nothing: all of it has one colour.
fn is_blank(picture: &RgbImage) -> bool {
    let mut pixels = picture.pixels();
    let first = pixels.next();
    pixels.all(|pixel| Some(pixel) == first)
}

/// The first later frame of what moves that shows something: many begin with a blank one. Damage behind the first does no harm.
fn later_frame(
    source: &mut Source<'_>,
    format: ImageFormat,
    orientation: Orientation,
) -> Option<RgbImage> {
    let file = Cursor::new(source.whole().ok()?);
    let frames = match format {
        ImageFormat::Gif => GifDecoder::new(file).ok()?.into_frames(),
        ImageFormat::WebP => {
            WebPDecoder::new(file).ok().filter(WebPDecoder::has_animation)?.into_frames()
        }
        _ => return None,
    };
    for frame in frames.take(FRAMES_MAX) {
        source.cancel.check().ok()?;
        let frame = upright(frame.ok()?.into_buffer().into(), orientation);
        if !is_blank(&frame) {
            return Some(frame);
        }
    }
    None
}

/// What an EXIF block says, if there is a sound one. Some writers put the block's name before it, as JPEG has it.
fn exif_orientation(decoder: &mut impl ImageDecoder) -> Option<Orientation> {
    let exif = decoder.exif_metadata().ok()??;
    Orientation::from_exif_chunk(exif.strip_prefix(EXIF_NAME).unwrap_or(&exif))
        .filter(|orientation| *orientation != Orientation::NoTransforms)
}

pub(super) fn bytes_max(source: &mut Source<'_>, format: ImageFormat) -> Result<u64, Problem> {
    let file_bytes = source.length()?;
    let mut decoder = open(source, format, &Rc::default())?;
    let (pixels, decoded) = (Size::from(decoder.dimensions()).pixels(), decoder.total_bytes());
    let turned = if exif_orientation(&mut decoder).is_some() { decoded } else { 0 };
    let color = decoder.color_type();
    let copies = match color {
        ColorType::Rgb8 => 0,
        _ if color.has_alpha() => RGBA_BYTES + RGB_BYTES,
        _ => RGB_BYTES,
    };
    let frames = match format {
        ImageFormat::Gif | ImageFormat::WebP => FRAME_BYTES,
        _ => 0,
    };
    let own = pixels * (copies + frames + DECODER_BYTES_PER_PIXEL);
    Ok(decoded + turned + own + file_bytes.min(WHOLE_BYTES_MAX))
}

/// Opens a picture whose header is within the limits.
fn open(
    source: &mut Source<'_>,
    format: ImageFormat,
    hit_end: &Rc<Cell<bool>>,
) -> Result<impl ImageDecoder + use<>, Problem> {
    let failed = |error: ImageError| problem(error, hit_end);
    let length = source.length()?;
    let patch = match format {
        ImageFormat::Bmp => bmp::pointer(&mut source.file, length).unwrap_or_default(),
        _ => Default::default(),
    };
    source.file.rewind()?;
    let file = BufReader::new(Patched::new(source.file.get_ref().try_clone()?, patch)?);
    let bytes_left = if format == ImageFormat::WebP { WHOLE_BYTES_MAX } else { u64::MAX };
    let tail = if format == ImageFormat::Png { PNG_END } else { &[] };
    let watched = Watched { file, tail, bytes_left, hit_end: Rc::clone(hit_end) };
    let mut reader = ImageReader::with_format(watched, format);
    let memory = |bytes| {
        let mut memory = Limits::default();
        memory.max_alloc = Some(bytes);
        memory
    };
    reader.limits(memory(HEADER_BYTES_MAX));
    let mut decoder = reader.into_decoder().map_err(failed)?;
    source.check(decoder.dimensions().into())?;
    let pixels = decoder.total_bytes();
    decoder.set_limits(memory(HEADER_BYTES_MAX + 2 * pixels)).map_err(failed)?;
    Ok(decoder)
}

/// Each decoder has other words for a file that ends too early, or none.
fn problem(error: ImageError, hit_end: &Cell<bool>) -> Problem {
    match error.into() {
        Problem::Damaged(_) if hit_end.get() => Problem::Truncated,
        problem => problem,
    }
}

/// A file that remembers whether a decoder wanted more than it has.
struct Watched {
    file: BufReader<Patched>,
    /// What is read behind its end.
    tail: &'static [u8],
    /// What may still be read.
    bytes_left: u64,
    hit_end: Rc<Cell<bool>>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Watched {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let at_end = self.file.fill_buf()?.is_empty();
        self.hit_end.set(self.hit_end.get() || at_end);
        let bytes = if at_end { self.tail } else { self.file.buffer() };
        let left = usize::try_from(self.bytes_left).unwrap_or(usize::MAX);
        Ok(&bytes[..bytes.len().min(left)])
    }

    fn consume(&mut self, amount: usize) {
        self.bytes_left -= amount as u64;
        if self.file.buffer().is_empty() {
            self.tail = &self.tail[amount..];
        } else {
            self.file.consume(amount);
        }
    }
}

impl Seek for Watched {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}
