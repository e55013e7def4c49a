//! Pictures as they are sent: each odd one is read as others read it, or refused by the right name.

pub(crate) mod made;
pub(crate) mod progressive;

use std::path::PathBuf;
use std::process::Command;

use gpu_inference::{
    Basis, Content, Decoder, InputError, Params, Picture, PictureBasis, Prepared, Task, WarningCode,
};
use image::{ImageFormat, Rgb, RgbImage, Rgba, RgbaImage, imageops};
use tempfile::TempDir;

use self::made::{
    BLACK_IS_ZERO, LINES, Layout, PALETTE, TiffPage, WHITE_IS_ZERO, YCBCR, damaged_jpeg, drawn,
    heic, huffman, jpeg, locked, marker, packed, page, pdf, png, png_chunk, restarted_jpeg,
    reversed, tag, tiff, ycbcr,
};
use self::progressive::progressive_jpeg;
use crate::support::{page as page_of, pipeline, run_one};

const MODEL: &str = "pp-ocr-v6-small";

fn file(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn decoded(task: Task, bytes: &[u8]) -> Result<Prepared, InputError> {
    let (_folder, path) = file(bytes);
    Decoder::default().decode(task, &path, &Params::default())
}

fn picture(bytes: &[u8]) -> Result<Picture, InputError> {
    decoded(Task::VisionOcr, bytes).map(|prepared| match prepared.content() {
        Content::Picture(picture) => picture.clone(),
        other => panic!("not a picture: {other:?}"),
    })
}

fn code(bytes: &[u8]) -> &'static str {
    picture(bytes).map_or_else(|error| error.code(), |_| "decoded")
}

/// The mean difference of two pictures' bytes.
fn difference(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let pairs = a.as_raw().iter().zip(b.as_raw());
    pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.as_raw().len() as f64
}

#[test]
fn a_tiff_of_a_scanner_or_a_fax_is_the_page() {
    let page = page();
    let (size, whole) = (page.dimensions(), TiffPage::of(&page));
    let grey = |bits: u16, colours: u16| {
        TiffPage::new(size, (1, bits), colours, packed(&page, bits.into()))
    };
    let turned_bits = reversed(&packed(&page, 4));
    let reversed_grey = TiffPage::new(size, (1, 4), WHITE_IS_ZERO, turned_bits);
    let reversed_grey = reversed_grey.with(tag::BIT_ORDER, &[2]).with(tag::COLOURS, &[1]);
    let palette = |bits: u16| grey(bits, PALETTE).with(tag::PALETTE, &shades(1 << bits));
    let black_and_white = RgbImage::from_fn(size.0, size.1, |x, y| {
        Rgb([if page.get_pixel(x, y).0[0] >= 128 { 255 } else { 0 }; 3])
    });
    let fax = |kind: u16, code: Vec<u8>| {
        TiffPage::new(size, (1, 1), WHITE_IS_ZERO, code).with(tag::COMPRESSION, &[kind])
    };
    let (marked, unmarked) = (huffman(&black_and_white, true), huffman(&black_and_white, false));
    let sampled = |code| TiffPage::new(size, (3, 8), YCBCR, code).with(tag::SUBSAMPLING, &[1, 1]);
    let cases = [
        ("planes in tiles", whole.clone().in_planes_and_tiles(&page, (64, 32)), 0.0),
        ("colour", whole, 0.0),
        ("palette of 8 bits", palette(8), 1.0),
        ("palette of 4 bits", palette(4), 3.0),
        ("palette of 1 bit", palette(1), 5.0),
        ("grey of 4 bits", grey(4, BLACK_IS_ZERO), 3.0),
        ("grey of 2 bits", grey(2, BLACK_IS_ZERO), 3.0),
        ("grey of 4 bits, reversed", reversed_grey, 3.0),
        ("black and white", grey(1, BLACK_IS_ZERO), 5.0),
        ("luma and chroma", sampled(ycbcr(&page)), 2.0),
        ("JPEG", sampled(jpeg(&page)).with(tag::COMPRESSION, &[7]), 2.0),
        ("fax of group 3", fax(3, marked.clone()).with(tag::FAX_OPTIONS, &[0]), 5.0),
        ("fax in Huffman's code", fax(2, unmarked), 5.0),
        ("fax, bits reversed", fax(3, reversed(&marked)).with(tag::BIT_ORDER, &[2]), 5.0),
    ];
    for (name, made, tolerance) in cases {
        for layout in [Layout::Little, Layout::Big, Layout::Long] {
            let found = picture(&tiff(layout, std::slice::from_ref(&made)));
            let found = found.unwrap_or_else(|error| panic!("{name}: {error}"));
            let difference = difference(found.rgb(), &page);
            assert!(difference <= tolerance, "{name}: off by {difference}");
        }
    }
}

#[test]
fn a_tiff_of_12_or_32_bits_is_the_page_and_one_of_several_such_channels_is_refused() {
    let page = page();
    let size = page.dimensions();
    let dark = |pixel: &Rgb<u8>| u32::from(pixel.0[0]);
    let twelve: Vec<u8> = page
        .as_raw()
        .chunks_exact(6)
        .flat_map(|pair| [pair[0], pair[3] >> 4, pair[3] << 4])
        .collect();
    let wide = |of: &dyn Fn(u32) -> u32, layout: Layout| -> Vec<u8> {
        let bytes = |number: u32| match layout {
            Layout::Big => number.to_be_bytes(),
            Layout::Little | Layout::Long => number.to_le_bytes(),
        };
        page.pixels().map(|pixel| of(dark(pixel))).flat_map(bytes).collect()
    };
    let grey = |bits, pixels| TiffPage::new(size, (1, bits), BLACK_IS_ZERO, pixels);
    for layout in [Layout::Little, Layout::Big, Layout::Long] {
        let of = |scale: u32| grey(32, wide(&|dark| dark << scale, layout));
        let signed = wide(&|dark| if dark == 0 { u32::MAX } else { dark << 8 }, layout);
        for (name, made) in [
            ("12 bits", grey(12, twelve.clone())),
            ("32 bits", of(24)),
            ("16 of 32 bits", of(8)),
            ("8 of 32 bits", of(0)),
            ("a sign", grey(32, signed).with(tag::FORMAT, &[2])),
        ] {
            let found =
                picture(&tiff(layout, &[made])).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(difference(found.rgb(), &page), 0.0, "{name}");
        }
    }
    let negative =
        TiffPage::new(size, (1, 12), WHITE_IS_ZERO, twelve.iter().map(|byte| !byte).collect());
    assert_eq!(difference(picture(&tiff(Layout::Little, &[negative])).unwrap().rgb(), &page), 0.0);
    let colour = TiffPage::new(size, (3, 12), 2, vec![0; page.as_raw().len() * 3 / 2]);
    assert_eq!(code(&tiff(Layout::Little, &[colour])), "input.unsupported");
}

/// From black to white, for red, green and blue.
fn shades(count: u32) -> Vec<u16> {
    let shade = |index: u32| u16::try_from(index * 65_535 / (count - 1)).unwrap();
    (0..3).flat_map(|_| (0..count).map(shade)).collect()
}

#[test]
fn all_pages_of_a_tiff_are_read_for_their_text_and_counted_otherwise() {
    let second = drawn((420, 240), &[(20, 90, "Page two")]);
    let (first, then) = (TiffPage::of(&page()), TiffPage::of(&second));
    let damaged = first.clone().with(tag::COLOURS, &[999]);
    for layout in [Layout::Little, Layout::Big, Layout::Long] {
        let bytes = tiff(layout, &[first.clone(), then.clone()]);
        let found = picture(&bytes).unwrap();
        assert_eq!((found.pages().len(), found.pages_total()), (2, 2));
        assert!(difference(&found.pages()[1], &second) < 1.0);
        let prepared = decoded(Task::VisionDetect, &bytes).unwrap();
        let Content::Picture(alone) = prepared.content() else { panic!() };
        assert_eq!((alone.pages().len(), alone.pages_total()), (1, 2));
        // A page that cannot be read costs no other, and a file without any is refused.
        let three = tiff(layout, &[first.clone(), damaged.clone(), then.clone()]);
        let found = picture(&three).unwrap();
        assert_eq!((found.pages().len(), found.pages_total()), (2, 3));
        let code = code(&tiff(layout, std::slice::from_ref(&damaged)));
        assert!(["input.unsupported", "input.damaged"].contains(&code), "{code}");
    }
    let bytes = tiff(Layout::Little, &[first, then]);
    let read = page_of(run_one(&mut pipeline(MODEL), decoded(Task::VisionOcr, &bytes).unwrap()));
    let texts: Vec<_> = read.lines.iter().map(|line| (line.page, line.text.as_str())).collect();
    assert_eq!(texts, [(0, LINES[0]), (0, LINES[1]), (1, "Page two")]);
    assert_eq!(read.pages.len(), 2);
}

#[test]
fn a_list_of_pages_is_bounded_and_a_circle_ends() {
    let tiny = TiffPage::new((1, 1), (1, 8), BLACK_IS_ZERO, vec![7]);
    let bytes = tiff(Layout::Little, &vec![tiny.clone(); 101]);
    let error = picture(&bytes).unwrap_err();
    assert_eq!(error.code(), "input.too_large");
    assert!(error.to_string().contains("101 pages"), "{error}");
    assert!(decoded(Task::VisionDetect, &bytes).is_ok());
    let mut circle = tiff(Layout::Little, &[tiny]);
    let next = circle.len() - 4;
    let first = circle[4..8].to_vec();
    circle[next..].copy_from_slice(&first);
    assert_eq!(picture(&circle).unwrap().pages_total(), 1);
}

/// image-tiff reserves memory for all the values that a tag is said to have, and is the only one to read pixels of 32 bits as floats.
#[test]
fn a_tag_of_more_bytes_than_its_file_is_not_handed_to_a_decoder_that_believes_it() {
    let pixels = [0.2_f32, 0.4, 0.6, 0.8].map(f32::to_le_bytes).concat();
    let page = TiffPage::new((2, 2), (1, 32), BLACK_IS_ZERO, pixels);
    let page = page.with(tag::FORMAT, &[3]).with(tag::PALETTE, &[7; 6]);
    let mut bytes = tiff(Layout::Little, &[page]);
    assert_eq!(code(&bytes), "decoded");
    let entry = [tag::PALETTE, 3, 6, 0].map(u16::to_le_bytes).concat();
    let at = bytes.windows(entry.len()).position(|window| window == entry).unwrap();
    bytes[at + 4..at + 8].copy_from_slice(&7_000_000_u32.to_le_bytes());
    assert_ne!(code(&bytes), "decoded");
}

#[test]
fn colours_of_a_tiff_that_too_many_pixels_share_are_refused_before_memory_is_taken() {
    let page = page();
    let (width, height) = page.dimensions();
    let made = TiffPage::new((width, height), (3, 8), YCBCR, ycbcr(&page));
    let sampled =
        |pixels: &[u16]| tiff(Layout::Little, &[made.clone().with(tag::SUBSAMPLING, pixels)]);
    assert_eq!(code(&sampled(&[1, 1])), "decoded");
    let error = picture(&sampled(&[11_777, 65_535])).unwrap_err();
    assert!(error.to_string().contains("shared by too many"), "{error}");
}

#[test]
fn a_jpeg_is_truncated_only_where_pixels_are_missing() {
    let page = page();
    let whole = jpeg(&page);
    let found = picture(&whole).unwrap();
    assert!(difference(found.rgb(), &page) < 4.0);
    // Without its end mark, with bytes between two segments, with a cut segment that says nothing about pixels.
    let unmarked = whole[..whole.len() - 2].to_vec();
    let table = marker(&whole, 0xdb);
    let junk = [&whole[..table], b"\0\x01junk\xff\xff", &whole[table + 1..]].concat();
    let adobe = [&whole[..2], b"\xff\xee\0\x07Adobe", &whole[2..]].concat();
    let exif = [&whole[..2], b"\xff\xe1\0\x0aExif\0\0XX", &whole[2..]].concat();
    for same in [unmarked, junk, adobe, exif] {
        assert_eq!(picture(&same).unwrap().rgb(), found.rgb());
    }
    for (share, end) in [(2, &b""[..]), (2, b"\xff\xd9"), (10, b""), (10, b"\xff\xd9")] {
        let cut = [&whole[..whole.len() - whole.len() / share], end].concat();
        assert_eq!(code(&cut), "input.truncated", "1/{share} is missing");
    }
    let header = marker(&whole, 0xc0);
    assert_eq!(code(&whole[..header]), "input.truncated");
}

#[test]
fn damage_in_a_jpeg_costs_what_lies_before_the_next_restart_mark() {
    let page = page();
    let (whole, rows) = restarted_jpeg(&page);
    let found = picture(&whole).unwrap();
    assert_eq!(found.rgb(), picture(&jpeg(&page)).unwrap().rgb());
    let row = rows[10].clone();
    let without =
        |range: std::ops::Range<usize>| [&whole[..range.start], &whole[range.end..]].concat();
    let middle = row.start + row.len() / 2;
    let with = |bytes: &[u8]| [&whole[..middle], bytes, &whole[middle + bytes.len()..]].concat();
    let several = rows[11].end;
    for (name, damaged, last) in [
        ("zeroes", damaged_jpeg(&page), 15),
        ("no code", with(b"\xff\0\xff\0\xff\0"), 10),
        ("too little", without(middle..row.end), 10),
        ("a mark that is none", with(b"\xff\xd7"), 10),
        ("a mark that might be one", with(b"\xff\xd2"), 11),
        ("a lost mark", without(row.end..row.end + 2), 11),
        ("lost rows", without(row.start..several), 12),
    ] {
        let first = if name == "zeroes" { 15 } else { 10 };
        let prepared = decoded(Task::VisionDetect, &damaged);
        let prepared = prepared.unwrap_or_else(|error| panic!("{name}: {error}"));
        let codes: Vec<_> =
            prepared.remarks().warnings.iter().map(|warning| warning.code).collect();
        assert_eq!(codes, [WarningCode::PictureDamaged], "{name}");
        let Content::Picture(read) = prepared.content() else { panic!("not a picture") };
        for row in 0..30 {
            let rows =
                |picture: &RgbImage| imageops::crop_imm(picture, 0, row * 8, 420, 8).to_image();
            let is_same = rows(read.rgb()) == rows(found.rgb());
            assert!(is_same || (first..=last).contains(&row), "{name}: row {row}");
        }
    }
    let mut nothing = whole.clone();
    nothing[rows[0].start..].fill(0xaa);
    assert_eq!(code(&[&nothing[..], b"\xff\xd9"].concat()), "input.truncated");
    for row in &rows {
        nothing[row.clone()].fill(0);
        nothing[row.start..row.start + 4].copy_from_slice(b"\xff\0\xff\0");
        nothing[row.end..row.end + 2].copy_from_slice(&whole[row.end..row.end + 2]);
    }
    assert_eq!(code(&nothing), "input.damaged");
    for end in [&b""[..], b"\xff\xd9"] {
        assert_eq!(code(&[&whole[..whole.len() / 2], end].concat()), "input.truncated");
    }
}

#[test]
fn damage_in_a_progressive_jpeg_costs_detail_and_only_without_colours_is_nothing_left() {
    let page = page();
    let page = imageops::crop_imm(&page, 0, 0, 416, 240).to_image();
    let (whole, scans) = progressive_jpeg(&page);
    let expected = picture(&whole).unwrap();
    assert!(difference(expected.rgb(), &page) < 2.0, "{}", difference(expected.rgb(), &page));
    for (number, scan) in scans.iter().enumerate() {
        let middle = scan.start + scan.len() / 2;
        // No code begins with nine ones; what is cut out makes a scan end too early.
        let no_code = [&whole[..middle], &b"\xff\0".repeat(6), &whole[middle + 12..]].concat();
        let cut_out = [&whole[..middle], &whole[scan.end..]].concat();
        for (name, damaged) in [("no code", no_code), ("cut out", cut_out)] {
            let is_last = number + 1 == scans.len();
            if is_last && name == "cut out" {
                assert_eq!(code(&damaged), "input.truncated");
                continue;
            }
            let prepared = decoded(Task::VisionDetect, &damaged);
            let prepared = prepared.unwrap_or_else(|error| panic!("{name} {number}: {error}"));
            let Content::Picture(read) = prepared.content() else { panic!("not a picture") };
            // Colours in whole bits have no code that is wrong.
            let mut warnings = prepared.remarks().warnings.iter();
            let is_told = warnings.any(|warning| warning.code == WarningCode::PictureDamaged);
            let off = difference(read.rgb(), expected.rgb());
            assert!(is_told || off < 1.0, "{name} {number}: off by {off}");
            // The upper half is there in any case.
            let upper = |of: &RgbImage| imageops::crop_imm(of, 0, 0, 416, 96).to_image();
            let off = difference(&upper(read.rgb()), &upper(expected.rgb()));
            assert!(off < 8.0, "{name} {number}: off by {off} in its upper half");
        }
    }
    for end in [&b""[..], b"\xff\xd9"] {
        for scan in &scans[1..] {
            let cut = [&whole[..scan.start + scan.len() / 2], end].concat();
            assert_eq!(code(&cut), "input.truncated");
        }
    }
    let mut nothing = whole.clone();
    let colours = &mut nothing[scans[0].clone()];
    colours.chunks_mut(2).for_each(|pair| pair.copy_from_slice(&b"\xff\0"[..pair.len()]));
    assert_eq!(code(&nothing), "input.damaged");
}

#[test]
fn a_jpeg_that_the_decoder_cannot_do_is_unsupported() {
    let whole = jpeg(&page());
    let frame = marker(&whole, 0xc0);
    let with = |offset: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[frame + offset] = byte;
        bytes
    };
    // Behind marker and length: bits, sides, the number of components, then name, factors and table of each.
    let (first_factors, second_factors) = (11, 14);
    for (bytes, said) in [
        (with(1, 0xc9), "arithmetic"),
        (with(1, 0xc3), "lossless"),
        (with(1, 0xc5), "hierarchical"),
        (with(4, 12), "12 bits"),
        (with(first_factors, 0x31), "3 x 1"),
        (with(second_factors, 0x21), "colours"),
    ] {
        let error = picture(&bytes).unwrap_err();
        assert_eq!(error.code(), "input.unsupported", "{said}: {error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn a_bmp_whose_header_points_elsewhere_is_the_page() {
    let page = page();
    let bmp = |picture: image::DynamicImage| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Bmp).unwrap();
        bytes.into_inner()
    };
    let pointing = |bytes: &[u8], to: u32| [&bytes[..10], &to.to_le_bytes(), &bytes[14..]].concat();
    for picture_made in [page.clone().into(), image::DynamicImage::from(imageops::grayscale(&page))]
    {
        let whole = bmp(picture_made);
        let expected = picture(&whole).unwrap();
        let right = u32::from_le_bytes(*whole[10..].first_chunk().unwrap());
        for wrong in [0, 14, right - 4, right + 4, right + 3_000, u32::MAX] {
            let found = picture(&pointing(&whole, wrong))
                .unwrap_or_else(|error| panic!("{wrong}: {error}"));
            assert_eq!(found.rgb(), expected.rgb(), "{wrong} for {right}");
        }
        let (header, pixels) = whole.split_at(right as usize);
        let spaced = pointing(&[header, &[0; 10], pixels].concat(), right + 10);
        assert_eq!(picture(&spaced).unwrap().rgb(), expected.rgb(), "a gap is no lie");
        assert_eq!(code(&pointing(&whole[..whole.len() / 2], right + 4)), "input.truncated");
    }
    // No number counts the pixels of these sides and bits.
    let mut vast = bmp(page.clone().into());
    vast[18..26].copy_from_slice(&[i32::MAX.to_le_bytes(), i32::MAX.to_le_bytes()].concat());
    vast[28..30].fill(0xff);
    assert_ne!(code(&vast), "input.crash");
    // A palette that is shorter than it says: the numbers of its end are not used.
    let dark = RgbImage::from_fn(40, 40, |x, y| Rgb([u8::try_from(x + y).unwrap(); 3]));
    let whole = bmp(imageops::grayscale(&dark).into());
    let right = u32::from_le_bytes(*whole[10..].first_chunk().unwrap()) as usize;
    let short = [&whole[..right - 400], &whole[right..]].concat();
    let short = pointing(&short, u32::try_from(right - 400).unwrap());
    assert_eq!(picture(&short).unwrap().rgb(), &dark);
}

#[test]
fn a_png_without_its_last_part_is_whole_and_one_without_pixels_is_not() {
    let page = page();
    let whole = png(page.clone());
    let unmarked = &whole[..whole.len() - 12];
    assert_eq!(picture(unmarked).unwrap().rgb(), &page);
    assert_eq!(code(&whole[..whole.len() / 2]), "input.truncated");
}

#[test]
fn of_what_moves_the_first_frame_that_shows_something_is_used() {
    let page = page();
    let blank = RgbImage::from_pixel(page.width(), page.height(), image::Rgb([255; 3]));
    let film = |frames: &[&RgbImage]| {
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
        for frame in frames {
            let frame = image::DynamicImage::ImageRgb8((*frame).clone()).into_rgba8();
            encoder.encode_frame(image::Frame::new(frame)).unwrap();
        }
        drop(encoder);
        bytes
    };
    let of = |frames: &[&RgbImage]| picture(&film(frames)).unwrap().rgb().clone();
    assert_eq!(of(&[&page, &blank]), of(&[&page]));
    assert_eq!(of(&[&blank, &blank, &page]), of(&[&page]));
    assert_eq!(of(&[&blank, &blank]), blank);
    // A later frame that cannot be decoded does no harm.
    let mut cut = film(&[&blank, &page]);
    cut.truncate(cut.len() * 3 / 4);
    assert_eq!(*picture(&cut).unwrap().rgb(), blank);
}

#[test]
fn a_png_is_turned_as_a_text_of_imagemagick_says() {
    let bytes = png(RgbImage::new(40, 20));
    let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let digits: String = exif.iter().map(|byte| format!("{byte:02x}")).collect();
    let (one, two) = digits.split_at(30);
    let text = format!("Raw profile type exif\0\nexif\n      {}\n{one}\n{two}\n", exif.len());
    let turned = |chunk: &[u8]| {
        let end = bytes.len() - 12;
        let with = [&bytes[..end], chunk, &bytes[end..]].concat();
        picture(&with).unwrap().rgb().dimensions()
    };
    assert_eq!(turned(&png_chunk(b"tEXt", text.as_bytes())), (20, 40));
    for odd in
        ["Raw profile type exif\0\nexif\n 99999\nzz", "Raw profile type exif\0", "Comment\0x"]
    {
        assert_eq!(turned(&png_chunk(b"tEXt", odd.as_bytes())), (40, 20));
    }
}

#[test]
fn letters_are_seen_whatever_lies_behind_what_is_transparent() {
    let page = page();
    let drawn = |ink: [u8; 3], alpha: fn(u8) -> u8| {
        RgbaImage::from_fn(page.width(), page.height(), |x, y| {
            let shade = page.get_pixel(x, y).0[0];
            Rgba([ink[0], ink[1], ink[2], alpha(shade)])
        })
    };
    let white = drawn([255; 3], |shade| 255 - shade);
    let black = drawn([0; 3], |shade| 255 - shade);
    let clear = RgbaImage::from_fn(page.width(), page.height(), |x, y| {
        let [red, green, blue] = page.get_pixel(x, y).0;
        Rgba([red, green, blue, 0])
    });
    let mut pipeline = pipeline(MODEL);
    for (name, picture) in [("white", white), ("black", black), ("clear", clear)] {
        let prepared = decoded(Task::VisionOcr, &png(picture)).unwrap();
        let read = page_of(run_one(&mut pipeline, prepared));
        let texts: Vec<_> = read.lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, LINES, "{name}");
    }
}

#[test]
fn long_pictures_are_read_from_end_to_end() {
    let mut pipeline = pipeline(MODEL);
    let mut read = |picture: RgbImage| {
        let output = run_one(&mut pipeline, Content::Picture(picture.into()).into());
        let Some(Basis::Picture(PictureBasis { reading: Some(reading), .. })) =
            output.remarks.basis
        else {
            panic!("no basis");
        };
        let lines = page_of(output).lines.into_iter().map(|line| line.text);
        (lines.collect::<Vec<_>>(), reading)
    };
    let named: Vec<String> = (0..20).map(|index| format!("Line at {:05}", index * 500)).collect();
    let tall: Vec<(u32, u32, &str)> =
        (0..).step_by(500).zip(&named).map(|(y, line)| (20, y + 20, line.as_str())).collect();
    let (lines, reading) = read(drawn((450, 10_000), &tall));
    assert_eq!(lines, named);
    assert!(reading.tiles > 1 && reading.lines_unread == 0, "{reading:?}");
    // The last line is more than 66 times as long as high.
    let long = (1..=40).map(|number| format!("Item {number}")).collect::<Vec<_>>().join(" ");
    let wide =
        [(100, 100, LINES[0]), (100, 200, LINES[1]), (5_500, 100, LINES[1]), (100, 300, &long)];
    assert_eq!(read(drawn((7_000, 420), &wide)).0, [LINES[0], LINES[1], LINES[1], &long]);
}

#[test]
fn a_page_that_stands_on_its_head_or_lies_on_a_side_is_read_from_its_beginning() {
    let lines = ["The first of the lines", "Invoice No. 20417", "Total 1,284.50 EUR"];
    let page = drawn((700, 700), &[(60, 100, lines[0]), (60, 200, lines[1]), (60, 300, lines[2])]);
    let mut pipeline = pipeline(MODEL);
    let turns = [
        ("quarter", imageops::rotate90(&page)),
        ("half", imageops::rotate180(&page)),
        ("three quarters", imageops::rotate270(&page)),
    ];
    for (name, picture) in turns {
        let read = page_of(run_one(&mut pipeline, Content::Picture(picture.into()).into()));
        let texts: Vec<_> = read.lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, lines, "{name}");
    }
}

#[test]
fn a_phone_s_photograph_is_turned_once_and_a_cut_one_is_truncated() {
    let page = page();
    let heic = heic(&page);
    let found = picture(&heic).unwrap();
    assert!(difference(found.rgb(), &page) < 4.0, "its EXIF block does not turn it again");
    assert_eq!(code(&heic[..heic.len() * 3 / 4]), "input.truncated");
    let mut vast = heic.clone();
    let size = vast.windows(4).position(|name| name == b"ispe").unwrap() + 8;
    vast[size..size + 8].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    assert_eq!(code(&vast), "input.too_large");
}

#[test]
fn an_avif_picture_needs_its_program() {
    let folder = tempfile::tempdir().unwrap();
    let (drawn, coded) = (folder.path().join("page.png"), folder.path().join("page.avif"));
    std::fs::write(&drawn, png(page())).unwrap();
    let made = Command::new("heif-enc").arg("-A").arg(&drawn).arg("-o").arg(&coded).output();
    assert!(made.is_ok_and(|made| made.status.success()), "apt-get install libheif-examples");
    let bytes = std::fs::read(coded).unwrap();
    assert!(difference(picture(&bytes).unwrap().rgb(), &page()) < 4.0);
    assert_eq!(code(&bytes[..bytes.len() / 2]), "input.truncated");
}

#[test]
fn pages_of_a_pdf_are_read_and_bounded() {
    let mut pipeline = pipeline(MODEL);
    let bytes = pdf(&["Invoice No. 20417", "Page two"], (300, 200));
    let read = page_of(run_one(&mut pipeline, decoded(Task::VisionOcr, &bytes).unwrap()));
    let texts: Vec<_> = read.lines.iter().map(|line| (line.page, line.text.as_str())).collect();
    assert_eq!(texts, [(0, "Invoice No. 20417"), (1, "Page two")]);
    assert_eq!((read.pages[0].width, read.pages[0].height), (834, 556));
    let many = pdf(&["x"; 101], (300, 200));
    let error = picture(&many).unwrap_err();
    assert!(
        error.code() == "input.too_large" && error.to_string().contains("101 pages"),
        "{error}"
    );
    assert_eq!(code(&pdf(&["x"], (200_000, 200))), "input.too_large");
    assert_eq!(code(b"%PDF-1.4 and nothing else that one could read"), "input.damaged");
    let locked = picture(&locked(&bytes)).unwrap_err();
    assert_eq!(locked.code(), "input.unsupported");
    assert!(locked.to_string().contains("password"), "{locked}");
}

#[test]
fn the_same_page_says_the_same_in_every_format() {
    let page = page();
    let coded = |format| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        page.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    let grey = TiffPage::new(page.dimensions(), (1, 4), BLACK_IS_ZERO, packed(&page, 4));
    let exact = [
        ("PNG", png(page.clone())),
        ("WebP", coded(ImageFormat::WebP)),
        ("BMP", coded(ImageFormat::Bmp)),
    ];
    for (format, bytes) in exact {
        assert_eq!(picture(&bytes).unwrap().rgb(), &page, "{format}");
    }
    let alike = [
        ("JPEG", jpeg(&page)),
        ("GIF", coded(ImageFormat::Gif)),
        ("TIFF", tiff(Layout::Big, &[grey])),
        ("HEIC", heic(&page)),
    ];
    let mut pipeline = pipeline(MODEL);
    for (format, bytes) in alike {
        let read = page_of(run_one(&mut pipeline, decoded(Task::VisionOcr, &bytes).unwrap()));
        let said: Vec<_> = read.lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(said, LINES, "{format}");
    }
}
