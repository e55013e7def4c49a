//! Prints pages of known text as pictures, so that what is read back can be compared with what was printed.
//!
//! `cargo run -p gpu-inference --example print_pages OUT_FOLDER` writes NAME.png and NAME.txt for each page. The font is one
//! of the samples that scripts/fetch-models.py fetches.

use std::error::Error;
use std::path::PathBuf;

use ab_glyph::{FontVec, PxScale};
use gpu_inference::cache_folder;
use image::{Rgb, RgbImage};
use imageproc::drawing::draw_text_mut;

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

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: print_pages OUT_FOLDER")?);
    std::fs::create_dir_all(&out)?;
    let font =
        FontVec::try_from_vec(std::fs::read(cache_folder().join("samples/DejaVuSans.ttf"))?)?;
    for (name, lines) in PAGES {
        let height = 2 * MARGIN + LINE_HEIGHT * u32::try_from(lines.len())?;
        let mut page = RgbImage::from_pixel(WIDTH, height, PAPER);
        for (y, line) in (MARGIN..).step_by(LINE_HEIGHT as usize).zip(lines) {
            let (x, y) = (i32::try_from(MARGIN)?, i32::try_from(y)?);
            draw_text_mut(&mut page, INK, x, y, PxScale::from(FONT_PIXELS), &font, line);
        }
        page.save(out.join(format!("{name}.png")))?;
        std::fs::write(out.join(format!("{name}.txt")), lines.join("\n") + "\n")?;
    }
    Ok(())
}
