//! TIFF: scans, faxes and photographs, of several pages.
//!
//! The crate `oxideav-tiff` reads what scanners and fax machines write; the crate `image` reads what that refuses, such as 32 bits a
//! sample. Both are asked for one page at a time, so that a page that neither can read costs no other.

mod directory;

use std::io::BufReader;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage, RgbaImage};
use oxideav_tiff::{DecodeOptions, Error as TiffError, decode_page_at_with};

pub(super) use self::directory::begins;
use self::directory::{Directory, Header};
use super::patched::Patched;
use super::{
    Pages, Picture, Problem, RGB_BYTES, Source, UnreadPage, WHOLE_BYTES_MAX, paper, upright,
};
use crate::size::Size;
use crate::text;

/// Most bytes of a pixel: four channels of 32 bits.
const PIXEL_BYTES_MAX: u64 = 16;

pub(super) fn decode(source: &mut Source<'_>, wanted: Pages) -> Result<Picture, Problem> {
    let (header, directories) = pages(source, wanted)?;
    let decoded = if wanted == Pages::All { directories.len() } else { 1 };
    let bytes = if source.length()? > WHOLE_BYTES_MAX { None } else { Some(source.whole()?) };
    let (mut pages, mut unread, mut failure) = (Vec::new(), Vec::new(), None);
    for (index, directory) in directories[..decoded].iter().enumerate() {
        let page = Page { header: &header, directory, bytes: bytes.as_deref() };
        match page.decode(source) {
            Ok(picture) => pages.push(picture),
            Err(problem @ Problem::Unreadable(_)) => return Err(problem),
            Err(problem) => {
                let said = problem.said();
                unread.push(UnreadPage { index, problem: said });
                failure.get_or_insert(problem);
            }
        }
    }
    match failure {
        Some(problem) if pages.is_empty() => Err(problem),
        _ => Ok(Picture { pages, pages_total: directories.len(), unread, damage: None }),
    }
}

pub(super) fn bytes_max(source: &mut Source<'_>, wanted: Pages) -> Result<u64, Problem> {
    let (_, directories) = pages(source, wanted)?;
    let pixels = |directory: &Directory| directory.size.pixels();
    let decoded = if wanted == Pages::All { directories.len() } else { 1 };
    let kept: u64 = directories[..decoded].iter().map(pixels).sum();
    let most = directories[..decoded].iter().map(Directory::decoded_bytes).max().unwrap_or(0);
    // A page is decoded, converted and perhaps turned while those before it are kept.
    let file = source.length()?.min(WHOLE_BYTES_MAX);
    Ok(kept * RGB_BYTES + 3 * most + file)
}

/// The directories of the pages, which are within the limits.
fn pages(source: &mut Source<'_>, wanted: Pages) -> Result<(Header, Vec<Directory>), Problem> {
    let length = source.length()?;
    let (header, directories) = directory::read(&mut source.file, length)?;
    let own: Vec<_> = directories.iter().filter(|directory| directory.is_page()).cloned().collect();
    let directories = if own.is_empty() { directories } else { own };
    if wanted == Pages::All {
        let pixels = directories.iter().map(|directory| directory.size.pixels()).sum();
        source.check_pages(directories.len(), pixels)?;
    }
    source.check(directories[0].size)?;
    Ok((header, directories))
}

/// A page that is to be decoded.
struct Page<'a> {
    header: &'a Header,
    directory: &'a Directory,
    /// The file, if it is not too large for that.
    bytes: Option<&'a [u8]>,
}

impl Page<'_> {
    fn decode(&self, source: &mut Source<'_>) -> Result<RgbImage, Problem> {
        source.check(self.directory.size)?;
        let first = self.bytes.map(|bytes| surviving(|| self.by_oxideav(bytes)));
        let first = match first {
            Some(Ok(picture)) => return Ok(picture),
            Some(Err(problem)) => Some(problem),
            None => None,
        };
        surviving(|| self.by_image(source)).map_err(|second| {
            if matches!(second, Problem::Unreadable(_)) {
                second
            } else if self.directory.is_cut(source.length().unwrap_or(u64::MAX)) {
                Problem::Truncated
            } else {
                first.unwrap_or(second)
            }
        })
    }

    fn by_oxideav(&self, bytes: &[u8]) -> Result<RgbImage, Problem> {
        if !self.directory.has_known_sampling() {
            return Err(Problem::damaged("its colours are said to be shared by too many pixels"));
        }
        if let Some(packing) = self.directory.packing(*self.header) {
            let (bytes, line_bytes) = self.directory.as_bytes(bytes, *self.header);
            let size = Size { width: line_bytes, ..self.directory.size };
            let packed = decode_page_at_with(&bytes, self.directory.at, &options(size))?.image;
            let upright = Size { width: packed.width(), height: packed.height() } == size;
            let packed = packed.as_bytes().filter(|_| upright && packed.bytes_per_pixel() == 1);
            let packed = packed.ok_or(Problem::unsupported("a turned TIFF of few bits"))?;
            return Ok(packing.unpacked(packed, line_bytes));
        }
        let page = decode_page_at_with(bytes, self.directory.at, &options(self.directory.size))?;
        // It is turned upright there.
        let picture = page.image;
        let clear = picture.has_alpha()
            || picture.palette.as_ref().is_some_and(oxideav_tiff::Palette::has_alpha);
        let (width, height) = (picture.width(), picture.height());
        let too_few = || Problem::damaged("its pixels are not as many as its header says");
        if clear {
            let rgba = RgbaImage::from_raw(width, height, picture.to_rgba8());
            return Ok(paper::flatten(DynamicImage::from(rgba.ok_or_else(too_few)?)));
        }
        RgbImage::from_raw(width, height, picture.to_rgb8()).ok_or_else(too_few)
    }

    fn by_image(&self, source: &mut Source<'_>) -> Result<RgbImage, Problem> {
        if self.directory.exceeds_file() {
            return Err(Problem::damaged("a tag is said to have more bytes than the file"));
        }
        // The crate reads only the page that the header points to.
        let file = source.file.get_ref().try_clone()?;
        let pointed = Patched::new(file, self.header.pointing_to(self.directory.at))?;
        let mut reader = ImageReader::with_format(BufReader::new(pointed), ImageFormat::Tiff);
        let mut memory = Limits::default();
        memory.max_alloc = Some(self.directory.size.pixels() * 2 * PIXEL_BYTES_MAX + (1 << 20));
        reader.limits(memory);
        let mut decoder = reader.into_decoder()?;
        source.check(decoder.dimensions().into())?;
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        Ok(upright(DynamicImage::from_decoder(decoder)?, orientation))
    }
}

/// The limits of a decoder for a page of this size.
fn options(size: Size) -> DecodeOptions {
    DecodeOptions::new()
        .with_max_width(size.width)
        .with_max_height(size.height)
        .with_max_pixels(size.pixels())
        .with_max_bytes(size.pixels() * PIXEL_BYTES_MAX)
}

/// A decoder's outcome: one that panics on a page may have a neighbour that reads it.
fn surviving(decode: impl FnOnce() -> Result<RgbImage, Problem>) -> Result<RgbImage, Problem> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(Problem::damaged("its decoder crashed")))
}

impl From<TiffError> for Problem {
    fn from(error: TiffError) -> Self {
        match error {
            TiffError::Unsupported(problem) => Self::Unsupported(text::cut(problem)),
            // What it does not know it also calls invalid.
            TiffError::InvalidData(problem) if problem.contains("not supported") => {
                Self::Unsupported(text::cut(problem))
            }
            error => Self::Damaged(text::said(&error)),
        }
    }
}
