//! Pictures and documents that no crate here decodes: converted to PNG by a program, where it is installed.
//!
//! A program is run as a child on this one file, within limits of time, memory and what it may write.

use std::ffi::OsStr;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use image::{ImageFormat, RgbImage};
use tempfile::TempDir;

use super::{PAGES_MAX, Pages, Picture, Problem, Source, UnreadPage, simple};
use crate::input::error::InputError;
use crate::preprocess::child::{self, ChildError, Resources, Said};
use crate::size::Size;
use crate::text;

/// What shows and draws the pages of a PDF, and what converts AVIF and HEIC; looked up in the search path.
const PDF_FACTS: &str = "pdfinfo";
const PDF_PAGES: &str = "pdftoppm";
const HEIF: &str = "heif-convert";
/// Dots an inch of a drawn page: a letter of 8 points is 22 pixels high.
const PAGE_DPI: u32 = 200;
const POINTS_AN_INCH: f64 = 72.0;
/// Limits of a program.
const TIME_MAX: Duration = Duration::from_secs(120);
const RESOURCES: Resources = Resources { memory_bytes_max: 2 << 30, file_bytes_max: 1 << 30 };

/// A picture by `heif-convert`. `missing` is what is in the way of decoding it here.
pub(super) fn picture(source: &mut Source<'_>, missing: &str) -> Result<RgbImage, Problem> {
    let folder = folder()?;
    let target = folder.path().join("picture.png");
    let said = run(source, HEIF, [source.path.as_os_str(), target.as_os_str()], missing)?;
    let failed = || Problem::Unsupported(format!("{missing}; {HEIF} says: {}", first_line(&said)));
    if !said.success || !target.is_file() {
        return Err(failed());
    }
    // It may leave a part of a picture, and say that all is well.
    drawn(source, &target).map_err(|problem| match problem {
        Problem::Truncated | Problem::Damaged(_) => failed(),
        problem => problem,
    })
}

/// The pages of a PDF by `pdftoppm`.
pub(super) fn pdf(source: &mut Source<'_>, wanted: Pages) -> Result<Picture, Problem> {
    let sizes = page_sizes(source)?;
    let total = sizes.len();
    let sizes = if wanted == Pages::First { &sizes[..1] } else { &sizes[..] };
    for size in sizes {
        source.check(*size)?;
    }
    source.check_pages(sizes.len(), sizes.iter().map(|size| size.pixels()).sum())?;
    let (mut pages, mut unread) = (Vec::new(), Vec::new());
    for index in 0..sizes.len() {
        match page(source, index) {
            Ok(picture) => pages.push(picture),
            Err(problem @ (Problem::Damaged(_) | Problem::Unsupported(_))) => {
                unread.push(UnreadPage { index, problem: problem.said() });
            }
            Err(problem) => return Err(problem),
        }
    }
    match unread.first() {
        Some(first) if pages.is_empty() => Err(Problem::Damaged(first.problem.clone())),
        _ => Ok(Picture { pages, pages_total: total, unread, damage: None }),
    }
}

/// A page, from 0. Each is a run of its own, so that its memory and its file are freed before the next.
fn page(source: &mut Source<'_>, index: usize) -> Result<RgbImage, Problem> {
    let folder = folder()?;
    let target = folder.path().join("page");
    let (dpi, number) = (PAGE_DPI.to_string(), (index + 1).to_string());
    let options = ["-png", "-singlefile", "-r", &dpi, "-f", &number, "-l", &number];
    let files = [source.path.as_os_str(), target.as_os_str()];
    let arguments = options.iter().map(OsStr::new).chain(files);
    let said = run(source, PDF_PAGES, arguments, "a PDF")?;
    let target = target.with_extension("png");
    if !said.success || !target.is_file() {
        return Err(Problem::Damaged(format!("{PDF_PAGES} says: {}", first_line(&said))));
    }
    drawn(source, &target)
}

/// The size of each page in pixels. More than [`PAGES_MAX`] are refused.
fn page_sizes(source: &mut Source<'_>) -> Result<Vec<Size>, Problem> {
    let last = (PAGES_MAX + 1).to_string();
    let options = ["-f", "1", "-l", &last];
    let arguments = options.iter().map(OsStr::new).chain([source.path.as_os_str()]);
    let said = run(source, PDF_FACTS, arguments, "a PDF")?;
    let errors = String::from_utf8_lossy(&said.stderr);
    if errors.contains("Incorrect password") {
        return Err(Problem::unsupported("a password protects it"));
    }
    let facts = String::from_utf8_lossy(&said.stdout).into_owned();
    let count = facts.lines().find_map(|line| line.strip_prefix("Pages:"));
    let count: usize = count.and_then(|count| count.trim().parse().ok()).unwrap_or(0);
    if count > PAGES_MAX {
        source.check_pages(count, 0)?;
    }
    let sizes: Vec<Size> = facts.lines().filter_map(page_size).collect();
    if !said.success || sizes.is_empty() || sizes.len() != count {
        return Err(Problem::Damaged(format!("{PDF_FACTS} says: {}", first_line(&said))));
    }
    Ok(sizes)
}

/// Of a line such as `Page    1 size: 595.28 x 841.89 pts (A4)`.
fn page_size(line: &str) -> Option<Size> {
    let mut words = line.strip_prefix("Page ")?.split_ascii_whitespace();
    let (_number, "size:") = (words.next()?, words.next()?) else { return None };
    let width = words.next()?.parse().ok()?;
    let ("x", height) = (words.next()?, words.next()?.parse().ok()?) else { return None };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let pixels = |points: f64| (points * f64::from(PAGE_DPI) / POINTS_AN_INCH).ceil() as u32;
    Some(Size { width: pixels(width), height: pixels(height) })
}

fn folder() -> Result<TempDir, Problem> {
    tempfile::tempdir().map_err(Problem::Unreadable)
}

/// What a program has drawn, within the picture's own limits.
fn drawn(source: &Source<'_>, path: &Path) -> Result<RgbImage, Problem> {
    let file = BufReader::new(File::open(path)?);
    let mut drawn = Source { file, ..*source };
    simple::decode(&mut drawn, ImageFormat::Png)
}

fn run<'a>(
    source: &Source<'_>,
    program: &'static str,
    arguments: impl IntoIterator<Item = &'a OsStr>,
    problem: &str,
) -> Result<Said, Problem> {
    let refused = |error| Err(Problem::Refused(error));
    let path = || source.path.to_owned();
    let mut command = Command::new(program);
    command.args(arguments);
    match child::run_within(&mut command, "", TIME_MAX, Some(RESOURCES), source.cancel) {
        Ok(said) => Ok(said),
        Err(ChildError::Cancelled(_)) => refused(InputError::Cancelled),
        Err(ChildError::Start(_)) => {
            let problem = problem.to_owned();
            refused(InputError::NeedsProgram { path: path(), problem, program })
        }
        Err(error) => {
            Err(Problem::Unsupported(format!("{problem}; {program}: {}", text::said(&error))))
        }
    }
}

fn first_line(said: &Said) -> String {
    let said = String::from_utf8_lossy(&said.stderr);
    text::cut(said.lines().next().unwrap_or("nothing").to_owned())
}

/// The optional programs of this machine, each with the formats that it adds, its Debian package, and whether it is in the search path.
#[must_use]
pub fn picture_programs() -> [(&'static str, &'static str, &'static str, bool); 2] {
    let is_installed = |program| {
        let asked = Command::new(program).arg("-v").stdin(Stdio::null()).output();
        asked.is_ok()
    };
    [
        (PDF_PAGES, "PDF", "poppler-utils", is_installed(PDF_PAGES)),
        (HEIF, "AVIF", "libheif-examples", is_installed(HEIF)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_s_size_is_read_in_pixels() {
        let a4 = page_size("Page    1 size: 595.276 x 841.89 pts (A4)");
        assert_eq!(a4, Some(Size { width: 1654, height: 2339 }));
        let vast = page_size("Page   12 size:   200000 x 1e30 pts").unwrap();
        assert_eq!((vast.width, vast.height), (555_556, u32::MAX));
        for line in ["Pages:           12", "Page size:       595 x 842 pts", "Page    1 rot:  0"] {
            assert_eq!(page_size(line), None, "{line}");
        }
    }
}
