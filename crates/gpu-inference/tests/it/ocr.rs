//! OCR of pages whose text is known, since the tests draw them.

use ab_glyph::{FontVec, PxScale};
use gpu_inference::{
    Cancel, Content, DevicePreference, ModelStore, Page, Pipeline, Prepared, Task, open_pipeline,
};
use image::{Rgb, RgbImage, imageops};
use imageproc::drawing::draw_text_mut;
use imageproc::geometric_transformations::{Border, Interpolation, rotate_about_center};

use crate::support::{models_folder, page, pipeline, prepare, run_one, runtime, sample};

const MODEL: &str = "pp-ocr-v6-small";
/// Its smaller predecessor.
const SMALL_MODEL: &str = "pp-ocr-v4-mobile";
const LINES: [&str; 4] = [
    "The quick brown fox jumps over the lazy dog.",
    "Invoice 2024-117: total 1,284.50 EUR",
    "Hello, World!",
    "A longer line of printed text reaches further to the right.",
];
const INK: Rgb<u8> = Rgb([20, 20, 30]);
const PAPER: Rgb<u8> = Rgb([250, 250, 245]);

#[test]
fn printed_lines_are_read_exactly_and_in_order() {
    let found = read(&mut pipeline(MODEL), draw(&LINES, 800, 736));
    assert_eq!(texts(&found), LINES);
    assert_eq!((found.pages[0].width, found.pages[0].height), (800, 736));
    for (index, line) in found.lines.iter().enumerate() {
        assert!(line.score > 0.95, "{line:?}");
        let [[left, top], _, [_, bottom], _] = line.corners;
        let expected = 40.0 + 80.0 * index as f32;
        assert!(left < 40.0 && top > expected - 15.0 && bottom < expected + 45.0, "{line:?}");
    }
}

#[test]
fn another_model_of_the_family_is_a_manifest_and_no_code() {
    let found = read(&mut pipeline(SMALL_MODEL), draw(&LINES[2..3], 736, 736));
    assert_eq!(texts(&found), ["Hello, World!"]);
}

#[test]
fn a_line_on_its_head_is_turned_and_a_slanted_one_is_straightened() {
    let mut pipeline = pipeline(MODEL);
    let mut turned = draw(&LINES[..1], 736, 736);
    imageops::rotate180_in_place(&mut turned);
    assert_eq!(texts(&read(&mut pipeline, turned)), LINES[..1]);
    let level = draw(&["", "", LINES[1]], 736, 736);
    let slanted =
        rotate_about_center(&level, 0.15, Interpolation::Bilinear, Border::Constant(PAPER));
    assert_eq!(texts(&read(&mut pipeline, slanted)), LINES[1..2]);
    let column = imageops::rotate270(&draw(&LINES[..1], 736, 736));
    assert_eq!(texts(&read(&mut pipeline, column)), LINES[..1]);
}

#[test]
fn a_strip_of_one_line_and_an_empty_page_are_read() {
    let mut pipeline = pipeline(MODEL);
    let strip = imageops::crop_imm(&draw(&LINES[..1], 700, 100), 0, 30, 700, 60).to_image();
    assert_eq!(texts(&read(&mut pipeline, strip)), LINES[..1]);
    assert!(read(&mut pipeline, draw(&[], 300, 300)).lines.is_empty());
    assert!(read(&mut pipeline, RgbImage::new(1, 1)).lines.is_empty());
}

#[test]
fn a_photographed_page_is_read_sensibly() {
    let input = prepare(Task::VisionOcr, &sample("page.png"));
    let found = page(run_one(&mut pipeline(MODEL), input));
    let texts = texts(&found);
    for expected in [
        "Region-based segmentation",
        "Let us first determine markers of the coins and the",
        "background. These markers are pixels that we can label",
        "histogram of grey values:",
        "markers = np.zeros_like(coins)",
    ] {
        assert!(texts.contains(&expected), "{expected} is not among {texts:#?}");
    }
}

#[test]
fn a_few_shapes_with_more_padding_give_the_same_text() {
    let (mut few, mut own) = (with_few_shapes(MODEL), pipeline(MODEL));
    let drawn = draw(&LINES, 900, 800);
    let pair = (read(&mut few, drawn.clone()), read(&mut own, drawn));
    assert_eq!(texts(&pair.0), texts(&pair.1));
    let photographed = || prepare(Task::VisionOcr, &sample("page.png"));
    let few = page(run_one(&mut few, photographed()));
    assert_eq!(texts(&few), texts(&page(run_one(&mut own, photographed()))));
}

#[test]
fn pages_of_many_sizes_in_one_batch_are_read_as_each_is_alone() {
    let mut on_its_head = draw(&LINES, 900, 740);
    imageops::rotate180_in_place(&mut on_its_head);
    let on_its_side = imageops::rotate270(&draw(&LINES[..2], 736, 736));
    let in_parts = draw(&["Hello, World!", "", "", "", ""].repeat(8), 450, 3_250);
    let pages = [
        (in_parts, 8),
        (draw(&LINES, 800, 736), LINES.len()),
        (draw(&[], 300, 300), 0),
        (on_its_head, LINES.len()),
        (on_its_side, 2),
    ];
    // What the stages do with parts is the same for both.
    let (own, few) = (pipeline(SMALL_MODEL), with_few_shapes(SMALL_MODEL));
    for (mut pipeline, pages) in [(own, &pages[1..]), (few, &pages[..])] {
        let inputs: Vec<Prepared> = pages.iter().map(|(page, _)| prepared(page.clone())).collect();
        let together = pipeline.run(&inputs, &Cancel::new()).unwrap();
        for (together, (drawn, lines)) in together.into_iter().zip(pages) {
            let (together, alone) = (page(together), read(&mut pipeline, drawn.clone()));
            assert_eq!(together.lines.len(), *lines);
            assert_same(&alone, &together);
        }
    }
}

#[test]
fn the_answer_does_not_depend_on_the_company_in_the_batch() {
    let mut pipeline = pipeline(MODEL);
    let pages = [draw(&LINES, 800, 736), draw(&LINES[1..3], 736, 736), draw(&LINES[2..], 800, 736)];
    let inputs: Vec<Prepared> = pages.iter().map(|page| prepared(page.clone())).collect();
    assert_eq!(inputs[0].shape_bucket(), inputs[2].shape_bucket());
    assert_ne!(inputs[0].shape_bucket(), inputs[1].shape_bucket());
    assert_eq!(inputs[0].cost(), 800 * 736);
    let together = pipeline.run(&inputs, &Cancel::new()).unwrap();
    assert_eq!(together.len(), pages.len());
    for (drawn, output) in pages.into_iter().zip(together) {
        assert_same(&read(&mut pipeline, drawn), &page(output));
    }
}

/// The model with few shapes, as on a GPU.
fn with_few_shapes(model: &str) -> Pipeline {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join(model);
    std::fs::create_dir(&target).unwrap();
    for entry in models_folder().join(model).read_dir().unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, target.join(from.file_name().unwrap())).unwrap();
    }
    let manifest = std::fs::read_to_string(target.join("model.toml")).unwrap();
    let few = manifest.replacen("[[file]]", "[settings]\nshapes = \"few\"\n[[file]]", 1);
    std::fs::write(target.join("model.toml"), few).unwrap();
    let store = ModelStore::open(folder.path()).unwrap();
    open_pipeline(&runtime(), &store, model, DevicePreference::Cpu).unwrap()
}

fn assert_same(alone: &Page, together: &Page) {
    assert_eq!(texts(alone), texts(together));
    for (alone, together) in alone.lines.iter().zip(&together.lines) {
        assert_eq!(alone.corners, together.corners);
        assert!((alone.score - together.score).abs() < 1e-4, "{alone:?} {together:?}");
    }
}

/// A page with one line every 80 pixels.
fn draw(lines: &[&str], width: u32, height: u32) -> RgbImage {
    let font = FontVec::try_from_vec(std::fs::read(sample("DejaVuSans.ttf")).unwrap()).unwrap();
    let mut picture = RgbImage::from_pixel(width, height, PAPER);
    for (y, line) in (40..).step_by(80).zip(lines) {
        draw_text_mut(&mut picture, INK, 40, y, PxScale::from(26.0), &font, line);
    }
    picture
}

fn prepared(picture: RgbImage) -> Prepared {
    Content::Picture(picture.into()).into()
}

fn read(pipeline: &mut Pipeline, picture: RgbImage) -> Page {
    page(run_one(pipeline, prepared(picture)))
}

fn texts(page: &Page) -> Vec<&str> {
    page.lines.iter().map(|line| line.text.as_str()).collect()
}
