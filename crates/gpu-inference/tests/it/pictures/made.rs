//! Pictures as scanners, fax machines, phones and browsers write them, made byte by byte: no library here writes such files.

use ab_glyph::{FontVec, PxScale};
use fax::{BitWriter, Bits, VecWriter, maps};
use image::{DynamicImage, ImageEncoder, Rgb, RgbImage};
use imageproc::drawing::draw_text_mut;

use crate::support::sample;

pub(crate) const LINES: [&str; 2] = ["Invoice No. 20417", "Total 1,284.50 EUR"];
/// What a TIFF's numbers mean.
pub(crate) const WHITE_IS_ZERO: u16 = 0;
pub(crate) const BLACK_IS_ZERO: u16 = 1;
pub(crate) const RGB: u16 = 2;
pub(crate) const PALETTE: u16 = 3;
pub(crate) const YCBCR: u16 = 6;
const BLACK: Rgb<u8> = Rgb([0; 3]);
pub(crate) const WHITE: Rgb<u8> = Rgb([255; 3]);
/// Height of letters in pixels.
const LETTERS: f32 = 42.0;

/// Lines at these heights.
pub(crate) fn drawn(size: (u32, u32), lines: &[(u32, u32, &str)]) -> RgbImage {
    let font = FontVec::try_from_vec(std::fs::read(sample("DejaVuSans.ttf")).unwrap()).unwrap();
    let mut picture = RgbImage::from_pixel(size.0, size.1, WHITE);
    for &(x, y, line) in lines {
        let (x, y) = (i32::try_from(x).unwrap(), i32::try_from(y).unwrap());
        draw_text_mut(&mut picture, BLACK, x, y, PxScale::from(LETTERS), &font, line);
    }
    picture
}

/// A line of letters of this height.
pub(crate) fn small_print(letters: f32) -> RgbImage {
    let font = FontVec::try_from_vec(std::fs::read(sample("DejaVuSans.ttf")).unwrap()).unwrap();
    let mut picture = RgbImage::from_pixel(300, 200, WHITE);
    draw_text_mut(&mut picture, BLACK, 20, 90, PxScale::from(letters), &font, LINES[0]);
    picture
}

/// A page of 4,200 x 1,600 pixels with a line of letters of this height.
pub(crate) fn large_page(letters: f32) -> RgbImage {
    let font = FontVec::try_from_vec(std::fs::read(sample("DejaVuSans.ttf")).unwrap()).unwrap();
    let mut picture = RgbImage::from_pixel(4_200, 1_600, WHITE);
    draw_text_mut(&mut picture, BLACK, 200, 400, PxScale::from(letters), &font, LINES[0]);
    picture
}

/// A TIFF of small grey pages; of each it is said what its numbers mean. TIFF has no meaning 999.
pub(crate) fn grey_pages(colours: &[u16]) -> Vec<u8> {
    let page = |&colours: &u16| TiffPage::new((40, 40), (1, 8), colours, vec![200; 1_600]);
    tiff(Layout::Little, &colours.iter().map(page).collect::<Vec<_>>())
}

/// Two lines of print.
pub(crate) fn page() -> RgbImage {
    drawn((420, 240), &[(20, 60, LINES[0]), (20, 130, LINES[1])])
}

/// Of the best quality, in parts of 8 x 8 pixels.
pub(crate) fn jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95);
    let (width, height) = picture.dimensions();
    encoder.write_image(picture, width, height, image::ExtendedColorType::Rgb8).unwrap();
    bytes
}

/// Where a marker of a JPEG stands.
pub(crate) fn marker(jpeg: &[u8], marker: u8) -> usize {
    jpeg.windows(2).position(|pair| pair == [0xff, marker]).unwrap()
}

/// The same with a restart mark behind each row of such parts, and the place of each row's code.
pub(crate) fn restarted_jpeg(picture: &RgbImage) -> (Vec<u8>, Vec<std::ops::Range<usize>>) {
    let (width, height) = picture.dimensions();
    let code = |jpeg: &[u8]| {
        let scan = marker(jpeg, 0xda) + 2;
        scan + usize::from(u16::from_be_bytes([jpeg[scan], jpeg[scan + 1]]))..jpeg.len() - 2
    };
    let mut bytes = jpeg(picture);
    bytes.truncate(code(&bytes).start);
    let interval = u16::try_from(width.div_ceil(8)).unwrap().to_be_bytes();
    let scan = marker(&bytes, 0xda);
    bytes.splice(scan..scan, [0xff, 0xdd, 0, 4, interval[0], interval[1]]);
    let mut rows = Vec::new();
    for (number, y) in (0..height).step_by(8).enumerate() {
        let row = image::imageops::crop_imm(picture, 0, y, width, 8.min(height - y)).to_image();
        let row = jpeg(&row);
        rows.push(bytes.len()..bytes.len() + code(&row).len());
        bytes.extend(&row[code(&row)]);
        bytes.extend([0xff, 0xd0 + u8::try_from(number % 8).unwrap()]);
    }
    // Behind the last row is the end.
    *bytes.last_mut().unwrap() = 0xd9;
    (bytes, rows)
}

/// The same, damaged in the middle.
pub(crate) fn damaged_jpeg(picture: &RgbImage) -> Vec<u8> {
    let (mut bytes, rows) = restarted_jpeg(picture);
    let row = rows[rows.len() / 2].clone();
    bytes[row.start + row.len() / 2..row.end].fill(0);
    bytes
}

/// A TIFF's tags.
pub(crate) mod tag {
    pub(crate) const WIDTH: u16 = 256;
    pub(crate) const HEIGHT: u16 = 257;
    pub(crate) const BITS: u16 = 258;
    pub(crate) const COMPRESSION: u16 = 259;
    pub(crate) const COLOURS: u16 = 262;
    pub(crate) const BIT_ORDER: u16 = 266;
    pub(crate) const SAMPLES: u16 = 277;
    pub(crate) const ROWS: u16 = 278;
    pub(crate) const PLANES: u16 = 284;
    pub(crate) const FAX_OPTIONS: u16 = 292;
    pub(crate) const PALETTE: u16 = 320;
    pub(crate) const TILE_WIDTH: u16 = 322;
    pub(crate) const TILE_HEIGHT: u16 = 323;
    pub(crate) const FORMAT: u16 = 339;
    pub(crate) const SUBSAMPLING: u16 = 530;
    pub(crate) const PIECES_AT: [u16; 2] = [273, 324];
    pub(crate) const PIECES_BYTES: [u16; 2] = [279, 325];
}

/// A page of a TIFF: its tags, of 16 bits each, and its pixels in strips, or in tiles where a tag says so.
#[derive(Clone)]
pub(crate) struct TiffPage {
    tags: Vec<(u16, Vec<u16>)>,
    pieces: Vec<Vec<u8>>,
}

impl TiffPage {
    /// Pixels of `samples` with `bits` each, whose meaning is `colours`, in one strip.
    pub(crate) fn new(
        (width, height): (u32, u32),
        (samples, bits): (u16, u16),
        colours: u16,
        pixels: Vec<u8>,
    ) -> Self {
        let side = |side: u32| vec![u16::try_from(side).unwrap()];
        let tags = vec![
            (tag::WIDTH, side(width)),
            (tag::HEIGHT, side(height)),
            (tag::ROWS, side(height)),
            (tag::BITS, vec![bits; samples.into()]),
            (tag::COLOURS, vec![colours]),
            (tag::SAMPLES, vec![samples]),
        ];
        Self { tags, pieces: vec![pixels] }
    }

    /// A picture as it is.
    pub(crate) fn of(picture: &RgbImage) -> Self {
        Self::new(picture.dimensions(), (3, 8), RGB, picture.as_raw().clone())
    }

    pub(crate) fn with(mut self, tag: u16, values: &[u16]) -> Self {
        self.tags.retain(|(own, _)| *own != tag);
        self.tags.push((tag, values.to_vec()));
        self
    }

    /// Each plane in tiles of this size, the last ones filled up with white.
    pub(crate) fn in_planes_and_tiles(self, picture: &RgbImage, size: (u16, u16)) -> Self {
        let tiled = self.with(tag::PLANES, &[2]).with(tag::TILE_WIDTH, &[size.0]);
        let mut tiled = tiled.with(tag::TILE_HEIGHT, &[size.1]);
        tiled.pieces = planar_tiles(picture, (size.0.into(), size.1.into()));
        tiled
    }
}

/// How a TIFF writes numbers.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Layout {
    Little,
    Big,
    /// With places of 64 bits.
    Long,
}

pub(crate) fn tiff(layout: Layout, pages: &[TiffPage]) -> Vec<u8> {
    let mut file = Tiff { layout, bytes: Vec::new() };
    match layout {
        Layout::Little => file.bytes.extend(b"II*\0"),
        Layout::Big => file.bytes.extend(b"MM\0*"),
        Layout::Long => file.bytes.extend(b"II+\0\x08\0\0\0"),
    }
    let mut pointer = file.bytes.len();
    file.place(0);
    for page in pages {
        let at = file.page(page);
        let place = Tiff { layout, bytes: Vec::new() }.placed(at.0);
        file.bytes[pointer..pointer + place.len()].copy_from_slice(&place);
        pointer = at.1;
    }
    file.bytes
}

struct Tiff {
    layout: Layout,
    bytes: Vec<u8>,
}

impl Tiff {
    fn number(&mut self, value: usize, width: usize) {
        let value = value as u64;
        match self.layout {
            Layout::Big => self.bytes.extend(&value.to_be_bytes()[8 - width..]),
            _ => self.bytes.extend(&value.to_le_bytes()[..width]),
        }
    }

    fn place_bytes(&self) -> usize {
        if self.layout == Layout::Long { 8 } else { 4 }
    }

    fn place(&mut self, at: usize) {
        self.number(at, self.place_bytes());
    }

    fn placed(mut self, at: usize) -> Vec<u8> {
        self.place(at);
        self.bytes
    }

    /// Where its directory lies, and the pointer to the next one.
    fn page(&mut self, page: &TiffPage) -> (usize, usize) {
        let tiled = page.tags.iter().any(|(tag, _)| *tag == tag::TILE_WIDTH);
        let mut places = Vec::new();
        for piece in &page.pieces {
            places.push(self.bytes.len());
            self.bytes.extend(piece);
        }
        let lengths: Vec<usize> = page.pieces.iter().map(Vec::len).collect();
        let kind = usize::from(tiled);
        let mut entries: Vec<(u16, usize, Vec<usize>)> = page
            .tags
            .iter()
            .filter(|(tag, _)| !tiled || *tag != tag::ROWS)
            .map(|(tag, values)| (*tag, 2, values.iter().map(|&value| value.into()).collect()))
            .collect();
        entries.push((tag::PIECES_AT[kind], 4, places));
        entries.push((tag::PIECES_BYTES[kind], 4, lengths));
        entries.sort_by_key(|entry| entry.0);
        // Values that do not fit into an entry lie before the directory.
        let mut outside = Vec::new();
        for (_, width, values) in &entries {
            outside.push(self.bytes.len());
            if width * values.len() > self.place_bytes() {
                values.iter().for_each(|&value| self.number(value, *width));
            }
        }
        let at = self.bytes.len();
        self.number(entries.len(), if self.layout == Layout::Long { 8 } else { 2 });
        for ((tag, width, values), outside) in entries.into_iter().zip(outside) {
            self.number(tag.into(), 2);
            self.number(if width == 2 { 3 } else { 4 }, 2);
            self.place(values.len());
            let end = self.bytes.len() + self.place_bytes();
            if width * values.len() > self.place_bytes() {
                self.place(outside);
            } else {
                values.iter().for_each(|&value| self.number(value, width));
                self.bytes.resize(end, 0);
            }
        }
        let next = self.bytes.len();
        self.place(0);
        (at, next)
    }
}

/// Grey pixels in `bits` each, row by row.
pub(crate) fn packed(picture: &RgbImage, bits: u32) -> Vec<u8> {
    let mut packed = Vec::new();
    for row in picture.rows() {
        let (mut waiting, mut count) = (0_u32, 0);
        for pixel in row {
            waiting = waiting << bits | u32::from(pixel.0[0]) >> (8 - bits);
            count += bits;
            if count == 8 {
                packed.push(u8::try_from(waiting).unwrap());
                (waiting, count) = (0, 0);
            }
        }
        if count > 0 {
            packed.push(u8::try_from(waiting << (8 - count)).unwrap());
        }
    }
    packed
}

/// Black and white in Huffman's code of fax machines, line by line: with a mark before each line, or each line in whole bytes.
pub(crate) fn huffman(picture: &RgbImage, marked: bool) -> Vec<u8> {
    let mut bits = VecWriter::new();
    let write = |bits: &mut VecWriter, run: u16, white: bool| {
        let code = |run| if white { maps::white::encode(run) } else { maps::black::encode(run) };
        if run >= 64 {
            bits.write(code(run / 64 * 64).unwrap()).unwrap();
        }
        bits.write(code(run % 64).unwrap()).unwrap();
    };
    for row in picture.rows() {
        if marked {
            bits.write(Bits { data: 1, len: 12 }).unwrap();
        }
        let (mut white, mut run) = (true, 0_u16);
        for pixel in row {
            if (pixel.0[0] >= 128) != white {
                write(&mut bits, run, white);
                (white, run) = (!white, 0);
            }
            run += 1;
        }
        write(&mut bits, run, white);
        if !marked {
            bits.pad();
        }
    }
    bits.finish()
}

/// With the bits of each byte the other way round.
pub(crate) fn reversed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| byte.reverse_bits()).collect()
}

/// Luma and two chromas of each pixel.
pub(crate) fn ycbcr(picture: &RgbImage) -> Vec<u8> {
    let of = |pixel: &Rgb<u8>| {
        let [red, green, blue] = pixel.0.map(i32::from);
        let luma = (299 * red + 587 * green + 114 * blue) / 1000;
        let chroma = [(blue - luma) * 564 / 1000 + 128, (red - luma) * 713 / 1000 + 128];
        [luma, chroma[0], chroma[1]].map(|value| u8::try_from(value.clamp(0, 255)).unwrap())
    };
    picture.pixels().flat_map(of).collect()
}

fn planar_tiles(picture: &RgbImage, (width, height): (u32, u32)) -> Vec<Vec<u8>> {
    let mut tiles = Vec::new();
    for plane in 0..3 {
        for top in (0..picture.height()).step_by(height as usize) {
            for left in (0..picture.width()).step_by(width as usize) {
                let at = |x, y| picture.get_pixel_checked(x, y).unwrap_or(&WHITE).0[plane];
                let rows =
                    (top..top + height).flat_map(|y| (left..left + width).map(move |x| (x, y)));
                tiles.push(rows.map(|(x, y)| at(x, y)).collect());
            }
        }
    }
    tiles
}

/// A picture as PNG.
pub(crate) fn png(picture: impl Into<DynamicImage>) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A part of a PNG, with a checksum.
pub(crate) fn png_chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let step = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    };
    let sum = !kind.iter().chain(content).fold(!0, step);
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[..], kind, content, &sum.to_be_bytes()].concat()
}

/// As a phone writes it, with an EXIF block that says what the container has done already.
pub(crate) fn heic(picture: &RgbImage) -> Vec<u8> {
    let (width, height) = picture.dimensions();
    let data = picture.pixels().flat_map(|pixel| {
        let [red, green, blue] = pixel.0;
        [red, green, blue, 255].map(u16::from)
    });
    let data = data.collect();
    let picture = heifer::Image { width, height, bit_depth: 8, has_alpha: false, data };
    let exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
    let metadata = heifer::Metadata { exif: Some(exif), ..heifer::Metadata::default() };
    let options = heifer::EncodeOptions { max_threads: 1, ..heifer::EncodeOptions::default() };
    heifer::encode_with_metadata(&picture, &metadata, &options).unwrap()
}

/// A PDF with a line on each page; sizes are in points.
pub(crate) fn pdf(lines: &[&str], (width, height): (u32, u32)) -> Vec<u8> {
    let kids: Vec<String> =
        (0..lines.len()).map(|index| format!("{} 0 R", 4 + 2 * index)).collect();
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        format!("<< /Type /Pages /Kids [{}] /Count {} >>", kids.join(" "), lines.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];
    for (index, line) in lines.iter().enumerate() {
        let content = format!("BT /F1 18 Tf 40 100 Td ({line}) Tj ET");
        objects.push(format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width} {height}] /Contents {} 0 R \
             /Resources << /Font << /F1 3 0 R >> >> >>",
            5 + 2 * index
        ));
        let length = content.len();
        objects.push(format!("<< /Length {length} >>\nstream\n{content}\nendstream"));
    }
    let mut bytes = b"%PDF-1.4\n".to_vec();
    let mut places = Vec::new();
    for (number, object) in objects.iter().enumerate() {
        places.push(format!("{:010} 00000 n \n", bytes.len()));
        bytes.extend(format!("{} 0 obj\n{object}\nendobj\n", number + 1).bytes());
    }
    let (count, table) = (objects.len() + 1, bytes.len());
    let places = places.concat();
    let end = format!(
        "xref\n0 {count}\n0000000000 65535 f \n{places}trailer\n\
         << /Size {count} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n"
    );
    bytes.extend(end.bytes());
    bytes
}

/// The PDF, as if an unknown password protected it.
pub(crate) fn locked(pdf: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(pdf.to_vec()).unwrap();
    let digits = "00".repeat(32);
    let lock =
        format!("<< /Filter /Standard /V 2 /R 3 /Length 128 /P -4 /O <{digits}> /U <{digits}> >>");
    let trailer = format!("trailer\n<< /Encrypt {lock} /ID [<00> <00>]");
    text.replace("trailer\n<<", &trailer).into_bytes()
}
