//! Pictures, and documents of several pages, to upright RGB.
//!
//! What a header announces is judged before any pixel is decoded, so that a small file cannot claim gigabytes; and a file that is cut is
//! told from one that a decoder cannot read. Each kind of file has its own module; PNG, WebP, BMP and GIF (one frame) are `simple`. Nothing here reads text.

mod bmp;
mod heic;
mod jpeg;
mod paper;
mod patched;
mod png;
pub(crate) mod programs;
mod simple;
mod tiff;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use gpu_tasks::WarningCode;
use image::metadata::Orientation;
use image::{DynamicImage, ImageError, ImageFormat, RgbImage};
use memchr::memmem;

use super::Decoder;
use super::error::{InputError, InputLimits, of_machine};
use crate::cancel::Cancel;
use crate::output::{Basis, PictureBasis, Remarks};
use crate::size::Size;
use crate::text;

/// What is accepted, in the words of the error.
const WANTED: &str = "a PNG, JPEG, WebP, BMP, TIFF, GIF, HEIC, AVIF or PDF file";
/// Most pages of a document.
const PAGES_MAX: usize = 100;
/// Most pixels of all pages together, as a multiple of the most of one.
const PAGES_PIXELS_FACTOR_MAX: u64 = 3;
/// Most of a file whose decoder holds it whole: more than 100 megapixels take at the best quality.
const WHOLE_BYTES_MAX: u64 = 256 << 20;
/// What tells the kind of a file, and where a PDF may begin.
const KIND_BYTES: usize = 64;
const PDF_BYTES: u64 = 1 << 10;
/// What an EXIF block may begin with.
const EXIF_NAME: &[u8] = b"Exif\0\0";
/// A decoded pixel.
const RGB_BYTES: u64 = 3;

/// A decoded picture, or the pages of a document.
#[derive(Debug, Clone)]
pub struct Picture {
    pages: Vec<RgbImage>,
    pages_total: usize,
    unread: Vec<UnreadPage>,
    /// What of the first page could not be decoded.
    damage: Option<String>,
}

/// A page that could not be decoded, where others could.
#[derive(Debug, Clone)]
struct UnreadPage {
    /// From 0.
    index: usize,
    problem: String,
}

/// Which pages of a document are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    First,
    All,
}

impl Picture {
    /// The pixels of the first page, upright and without transparency.
    #[must_use]
    pub fn rgb(&self) -> &RgbImage {
        &self.pages[0]
    }

    /// The pages that were decoded: one at least.
    #[must_use]
    pub fn pages(&self) -> &[RgbImage] {
        &self.pages
    }

    /// How many pages the file has.
    #[must_use]
    pub fn pages_total(&self) -> usize {
        self.pages_total
    }

    /// Says what was decoded, and what was left out.
    fn describe(&self, wanted: Pages, remarks: &mut Remarks) {
        let (width, height) = self.rgb().dimensions();
        let (pages, pages_total) = (self.pages.len(), self.pages_total);
        let basis = PictureBasis { pages, pages_total, width, height, reading: None };
        remarks.basis = Some(Basis::Picture(basis));
        if let Some(UnreadPage { index, problem }) = self.unread.first() {
            let (count, number) = (self.unread.len(), index + 1);
            let message = format!("{count} of {pages_total} pages; page {number}: {problem}");
            remarks.warn(WarningCode::PicturePagesUnread, message);
        }
        if let Some(damage) = &self.damage {
            remarks.warn(WarningCode::PictureDamaged, damage.clone());
        }
        if wanted == Pages::First && pages_total > 1 {
            let message = format!("the first of {pages_total} pages was used");
            remarks.warn(WarningCode::PicturePagesLeftOut, message);
        }
    }
}

impl From<RgbImage> for Picture {
    fn from(rgb: RgbImage) -> Self {
        Self { pages: vec![rgb], pages_total: 1, unread: Vec::new(), damage: None }
    }
}

/// What is wrong with a picture; the error adds its path.
#[derive(Debug)]
enum Problem {
    /// Pixels are missing at its end.
    Truncated,
    Unsupported(String),
    Damaged(String),
    /// The file cannot be read any further.
    Unreadable(io::Error),
    /// Beyond a limit, or not of a kind that is read.
    Refused(InputError),
}

impl Problem {
    fn damaged(problem: &str) -> Self {
        Self::Damaged(problem.to_owned())
    }

    fn unsupported(problem: &str) -> Self {
        Self::Unsupported(problem.to_owned())
    }

    /// What a warning says of a page.
    fn said(&self) -> String {
        match self {
            Self::Truncated => "its data ends too early".to_owned(),
            Self::Unsupported(problem) | Self::Damaged(problem) => problem.clone(),
            Self::Unreadable(error) => text::said(error),
            Self::Refused(error) => text::said(error),
        }
    }

    fn of(self, path: &Path) -> InputError {
        let path = path.to_owned();
        match self {
            Self::Truncated => InputError::PictureTruncated { path },
            Self::Unsupported(problem) => InputError::Unsupported { path, problem },
            Self::Damaged(problem) => InputError::Damaged { path, problem },
            Self::Unreadable(source) => InputError::Unreadable { path, source },
            Self::Refused(error) => error,
        }
    }
}

impl From<io::Error> for Problem {
    /// An error without the kernel's number is a reader's own, about an early end.
    fn from(error: io::Error) -> Self {
        match of_machine(&error) {
            Some(_) => Self::Unreadable(error),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Truncated,
            None => Self::Damaged(text::said(&error)),
        }
    }
}

impl From<ImageError> for Problem {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::IoError(error) if of_machine(&error).is_some() => Self::Unreadable(error),
            ImageError::Unsupported(problem) => Self::Unsupported(text::said(&problem)),
            error => Self::Damaged(text::said(&error)),
        }
    }
}

/// A file that is to be decoded.
struct Source<'a> {
    file: BufReader<File>,
    path: &'a Path,
    limits: &'a InputLimits,
    cancel: &'a Cancel,
}

/// Decodes a picture. What is found on the way goes into `remarks`.
pub(crate) fn decode(
    file: File,
    path: &Path,
    decoder: &Decoder,
    pages: Pages,
    remarks: &mut Remarks,
) -> Result<Picture, InputError> {
    let Decoder { limits, cancel } = decoder;
    let mut source = Source { file: BufReader::new(file), path, limits, cancel };
    let picture = decoded(&mut source, pages).map_err(|problem| problem.of(path))?;
    picture.describe(pages, remarks);
    Ok(picture)
}

fn decoded(source: &mut Source<'_>, pages: Pages) -> Result<Picture, Problem> {
    match source.kind()? {
        Kind::Jpeg => {
            let bytes = source.whole()?;
            source.check(jpeg::size(&bytes)?)?;
            let (picture, damage) = jpeg::decode(&bytes)?;
            Ok(Picture { damage, ..Picture::from(picture) })
        }
        Kind::Tiff => tiff::decode(source, pages),
        Kind::Heif(coding) => heic::decode(source, coding).map(Picture::from),
        Kind::Pdf => programs::pdf(source, pages),
        Kind::Simple(format) => simple::decode(source, format).map(Picture::from),
    }
}

/// The most memory that decoding takes, by the picture's header.
pub(crate) fn bytes_max(
    file: File,
    path: &Path,
    limits: &InputLimits,
    pages: Pages,
) -> Result<u64, InputError> {
    let cancel = &Cancel::new();
    let mut source = Source { file: BufReader::new(file), path, limits, cancel };
    let told = source.kind().and_then(|kind| match kind {
        Kind::Jpeg => {
            /// The decoder's coefficients of a pixel, and the turned picture.
            const OWN_BYTES: u64 = 6 + RGB_BYTES;
            let bytes = source.whole()?;
            let size = jpeg::size(&bytes)?;
            source.check(size)?;
            // The file, what is kept of it, and the decoder's copy of that.
            Ok(size.pixels() * (RGB_BYTES + OWN_BYTES) + 3 * bytes.len() as u64)
        }
        Kind::Tiff => tiff::bytes_max(&mut source, pages),
        Kind::Heif(_) => {
            /// The decoder's planes, the picture with its transparency, and a copy of that.
            const OWN_BYTES: u64 = 3 + 2 * 4;
            let bytes = source.whole()?;
            let size = heic::size(&bytes)?;
            source.check(size)?;
            Ok(size.pixels() * (RGB_BYTES + OWN_BYTES) + bytes.len() as u64)
        }
        // How many pages it has is not known before a program has looked.
        Kind::Pdf => Ok(PAGES_PIXELS_FACTOR_MAX * limits.image_pixels_max * RGB_BYTES),
        Kind::Simple(format) => simple::bytes_max(&mut source, format),
    });
    told.map_err(|problem| problem.of(path))
}

/// What a file is, by its first bytes.
enum Kind {
    Jpeg,
    Tiff,
    Heif(heic::Coding),
    Pdf,
    Simple(ImageFormat),
}

impl Source<'_> {
    fn kind(&mut self) -> Result<Kind, Problem> {
        let mut head = Vec::new();
        self.file.by_ref().take(PDF_BYTES).read_to_end(&mut head)?;
        self.file.rewind()?;
        let begin = &head[..head.len().min(KIND_BYTES)];
        if begin.starts_with(b"\xff\xd8") {
            return Ok(Kind::Jpeg);
        }
        if tiff::begins(begin) {
            return Ok(Kind::Tiff);
        }
        if let Some(coding) = heic::begins(begin) {
            return Ok(Kind::Heif(coding));
        }
        let simple = [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif];
        match image::guess_format(begin) {
            Ok(format) if simple.contains(&format) => Ok(Kind::Simple(format)),
            _ if memmem::find(&head, b"%PDF-").is_some() => Ok(Kind::Pdf),
            _ => {
                let path = self.path.to_owned();
                Err(Problem::Refused(InputError::WrongKind { path, wanted: WANTED }))
            }
        }
    }

    /// Length of the file.
    fn length(&self) -> Result<u64, Problem> {
        Ok(self.file.get_ref().metadata()?.len())
    }

    /// The whole file, if it is not too large for that.
    fn whole(&mut self) -> Result<Vec<u8>, Problem> {
        if self.length()? > WHOLE_BYTES_MAX {
            let (path, bytes_max) = (self.path.to_owned(), WHOLE_BYTES_MAX);
            return Err(Problem::Refused(InputError::FileTooLarge { path, bytes_max }));
        }
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Judges the size of a page.
    fn check(&self, size: Size) -> Result<(), Problem> {
        let Size { width, height } = size;
        let InputLimits { image_pixels_max: pixels_max, image_side_max: side_max, .. } =
            *self.limits;
        if size.pixels() > pixels_max || size.long_side() > side_max {
            let path = self.path.to_owned();
            let error = InputError::TooLarge { path, width, height, pixels_max, side_max };
            return Err(Problem::Refused(error));
        }
        if size.pixels() == 0 {
            return Err(Problem::Damaged(format!("it is {width} x {height} pixels")));
        }
        Ok(())
    }

    /// Judges the number and the pixels of a document's pages.
    fn check_pages(&self, count: usize, pixels: u64) -> Result<(), Problem> {
        let pixels_max = PAGES_PIXELS_FACTOR_MAX * self.limits.image_pixels_max;
        if count > PAGES_MAX || pixels > pixels_max {
            let path = self.path.to_owned();
            let (pages_max, pages) = (PAGES_MAX, count);
            let error = InputError::TooManyPages { path, pages, pages_max, pixels, pixels_max };
            return Err(Problem::Refused(error));
        }
        Ok(())
    }
}

/// A picture as its camera held it, on paper.
fn upright(mut picture: DynamicImage, orientation: Orientation) -> RgbImage {
    picture.apply_orientation(orientation);
    paper::flatten(picture)
}
