//! Prints pages of known text as pictures, so that what is read back can be compared with what was printed.
//!
//! `cargo run -p gpu-inference --example print_pages OUT_FOLDER` writes NAME.png and NAME.txt for each page; with `full` behind it, full pages to
//! measure with instead: `equal-NN.png` of one size, and `mixed-NN.png` of twelve. The font is one of the samples that scripts/fetch-models.py fetches.

use std::error::Error;
use std::path::{Path, PathBuf};

use ab_glyph::{FontVec, PxScale};
use gpu_inference::cache_folder;
use image::{Rgb, RgbImage};
use imageproc::drawing::{draw_text_mut, text_size};

const PAGES: [(&str, &[&str]); 2] = [
    (
        "invoice",
        &[
            "INVOICE 2026-0117",
            "Repair of one lathe, 3 hours",
            "Spare parts: 2 belts, 1 bearing",
            "Total: 418.50 EUR, due 15 December",
        ],
    ),
    (
        "notice",
        &[
            "The library closes at 18:00 on Friday.",
            "Please return all books to desk 4.",
            "We open again on Monday at 9:30.",
        ],
    ),
];

const WIDTH: u32 = 1_000;
const MARGIN: u32 = 60;
const LINE_HEIGHT: u32 = 64;
const FONT_PIXELS: f32 = 40.0;
const INK: Rgb<u8> = Rgb([20, 20, 30]);
const PAPER: Rgb<u8> = Rgb([250, 250, 245]);

/// Full pages of one size, and pages of many.
const EQUAL: ((u32, u32), usize) = ((1_200, 1_700), 16);
const MIXED: [(u32, u32); 12] = [
    (1_200, 1_700),
    (1_240, 1_754),
    (1_100, 1_600),
    (1_000, 1_414),
    (1_300, 1_800),
    (1_654, 2_339),
    (900, 1_300),
    (1_500, 1_100),
    (1_700, 1_200),
    (800, 1_100),
    (1_400, 2_000),
    (1_280, 720),
];
/// From one line of a full page to the next, in pixels.
const LINE_STEP: u32 = 40;
const WORDS: [&str; 24] = [
    "lathe", "the", "of", "invoice", "belt", "to", "bearing", "and", "library", "a", "desk", "in",
    "December", "is", "returned", "on", "Friday", "with", "hours", "for", "repair", "by", "total",
    "due",
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let out = PathBuf::from(arguments.next().ok_or("usage: print_pages OUT_FOLDER [full]")?);
    std::fs::create_dir_all(&out)?;
    let font =
        FontVec::try_from_vec(std::fs::read(cache_folder().join("samples/DejaVuSans.ttf"))?)?;
    match arguments.next() {
        Some(_) => print_full(&out, &font),
        None => print_known(&out, &font),
    }
}

fn print_known(out: &Path, font: &FontVec) -> Result<(), Box<dyn Error>> {
    for (name, lines) in PAGES {
        let height = 2 * MARGIN + LINE_HEIGHT * u32::try_from(lines.len())?;
        let mut page = RgbImage::from_pixel(WIDTH, height, PAPER);
        for (y, line) in (MARGIN..).step_by(LINE_HEIGHT as usize).zip(lines) {
            let (x, y) = (i32::try_from(MARGIN)?, i32::try_from(y)?);
            draw_text_mut(&mut page, INK, x, y, PxScale::from(FONT_PIXELS), font, line);
        }
        page.save(out.join(format!("{name}.png")))?;
        std::fs::write(out.join(format!("{name}.txt")), lines.join("\n") + "\n")?;
    }
    Ok(())
}

fn print_full(out: &Path, font: &FontVec) -> Result<(), Box<dyn Error>> {
    let (size, count) = EQUAL;
    let equal = (0..count).map(|number| ("equal", number, size));
    let mixed = MIXED.into_iter().enumerate().map(|(number, size)| ("mixed", number, size));
    for (kind, number, size) in equal.chain(mixed) {
        let mut words = Words(u32::try_from(number)? + 1);
        let (page, text) = full_page(size, &mut words, font)?;
        page.save(out.join(format!("{kind}-{number:02}.png")))?;
        std::fs::write(out.join(format!("{kind}-{number:02}.txt")), text)?;
    }
    Ok(())
}

/// A page with as many lines as have space, each nearly as long as the page is wide.
fn full_page(
    (width, height): (u32, u32),
    words: &mut Words,
    font: &FontVec,
) -> Result<(RgbImage, String), Box<dyn Error>> {
    let scale = PxScale::from(LINE_STEP as f32 * 0.6);
    let mut page = RgbImage::from_pixel(width, height, PAPER);
    let mut text = String::new();
    for y in (0..height).step_by(LINE_STEP as usize).take((height / LINE_STEP) as usize) {
        let mut line = words.next().to_owned();
        loop {
            let longer = format!("{line} {}", words.next());
            if text_size(scale, font, &longer).0 > width * 86 / 100 {
                break;
            }
            line = longer;
        }
        let (x, y) = (i32::try_from(width * 6 / 100)?, i32::try_from(y + LINE_STEP / 5)?);
        draw_text_mut(&mut page, INK, x, y, scale, font, &line);
        text = text + &line + "\n";
    }
    Ok((page, text))
}

/// Words in an order that is the same each time.
struct Words(u32);

impl Words {
    fn next(&mut self) -> &'static str {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        WORDS[(self.0 >> 16) as usize % WORDS.len()]
    }
}
