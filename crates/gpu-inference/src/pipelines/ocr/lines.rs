//! Lines and their text: what the models see of a line, and the recogniser's most likely classes decoded (CTC).

use std::ops::Range;

use image::{RgbImage, imageops};
use ort::session::Session;
use ort::value::ValueType;

use super::recogniser::Text;
use super::{LINE_HEIGHT, angle};

/// Where a long line may be cut: at most this multiple of its height from where its parts would be equally long.
const CUT_REACH: u32 = 4;
/// A gap as wide as a fifth of a line's height is between two words.
const SPACE_SHARE: u32 = 5;
/// A column that has less than this share of the line's contrast is empty.
const EMPTY_SHARE: u8 = 4;

/// Metadata key under which PP-OCR's exports carry their characters, one a line.
const CHARACTERS_KEY: &str = "character";
/// The class that means "no new character".
pub(super) const BLANK: usize = 0;

/// The characters of the recogniser's classes.
#[derive(Debug)]
pub(super) struct Alphabet {
    /// Class 0 is the blank; the last is the space, which the file leaves out.
    classes: Vec<String>,
}

impl Alphabet {
    /// Reads the alphabet out of the model, and checks that it has one character per class.
    pub(super) fn of(recogniser: &Session) -> Result<Self, String> {
        let characters =
            recogniser.metadata().ok().and_then(|metadata| metadata.custom(CHARACTERS_KEY));
        let characters =
            characters.ok_or_else(|| format!("metadata {CHARACTERS_KEY}: is missing"))?;
        let alphabet = Self::parse(&characters);
        let outputs = match recogniser.outputs()[0].dtype() {
            ValueType::Tensor { shape, .. } => shape.last().copied().unwrap_or(0),
            _ => 0,
        };
        if i64::try_from(alphabet.len()) != Ok(outputs) {
            let found = alphabet.len();
            return Err(format!(
                "metadata {CHARACTERS_KEY}: {found} classes for {outputs} outputs"
            ));
        }
        Ok(alphabet)
    }

    fn parse(characters: &str) -> Self {
        let lines = characters.lines().map(str::to_owned);
        let classes = std::iter::once(String::new()).chain(lines).chain([" ".to_owned()]);
        Self { classes: classes.collect() }
    }

    /// Number of classes.
    pub(super) fn len(&self) -> usize {
        self.classes.len()
    }

    /// The text, and the mean probability of its characters. A class that goes on is one character.
    pub(super) fn read(&self, columns: impl Iterator<Item = (usize, f32)>) -> (String, f32) {
        let mut text = String::new();
        let (mut sum, mut count) = (0.0, 0.0);
        let mut previous = BLANK;
        for (class, probability) in columns {
            if class != previous && class != BLANK {
                text.push_str(&self.classes[class]);
                sum += probability;
                count += 1.0;
            }
            previous = class;
        }
        (text, if count > 0.0 { sum / count } else { 0.0 })
    }
}

/// The parts of a line that the angle model sees, each as long as its input. PP-OCR squeezes the whole line into it,
/// and then misses one turned line in four (5 of 21, three fonts); the mean over the parts was right for all 42.
pub(super) fn views(line: &RgbImage) -> impl Iterator<Item = RgbImage> {
    let (width, height) = line.dimensions();
    let length = width.min(height * angle::WIDTH / LINE_HEIGHT);
    let spare = width - length;
    let starts = if spare == 0 { vec![0] } else { vec![0, spare / 2, spare] };
    starts.into_iter().map(move |x| imageops::crop_imm(line, x, 0, length, height).to_image())
}

/// What the recogniser sees at once: a line, or a part of a long one, which would be squeezed until it cannot be read.
pub(super) struct Part {
    pub(super) picture: RgbImage,
    /// A space follows.
    pub(super) spaced: bool,
}

/// The parts of a line, each at most `width_max` wide when it is scaled to [`LINE_HEIGHT`].
pub(super) fn parts(line: RgbImage, width_max: u32) -> Vec<Part> {
    let (width, height) = line.dimensions();
    let longest = (u64::from(width_max) * u64::from(height) / u64::from(LINE_HEIGHT)).max(1);
    let longest = u32::try_from(longest).unwrap_or(u32::MAX);
    if width <= longest {
        return vec![Part { picture: line, spaced: false }];
    }
    // Cuts move by their reach, on either side of a part.
    let reach = (CUT_REACH * height).min(longest / 4);
    let count = width.div_ceil(longest - 2 * reach);
    let empty = empty_columns(&line);
    let mut parts = Vec::new();
    let mut from = 0;
    for index in 1..=count {
        let even = u32::try_from(u64::from(width) * u64::from(index) / u64::from(count));
        let even = even.expect("within the line");
        let gap = if index == count {
            width..width
        } else {
            widest_gap(&empty, even.saturating_sub(reach)..(even + reach).min(width), even)
        };
        let to = gap.start.midpoint(gap.end);
        let picture = imageops::crop_imm(&line, from, 0, to - from, height).to_image();
        parts.push(Part { picture, spaced: gap.end - gap.start >= (height / SPACE_SHARE).max(1) });
        from = to;
    }
    parts
}

/// Whether each column of a line has paper only.
fn empty_columns(line: &RgbImage) -> Vec<bool> {
    let (mut low, mut high) =
        (vec![u8::MAX; line.width() as usize], vec![0; line.width() as usize]);
    for row in line.rows() {
        for (column, pixel) in row.enumerate() {
            low[column] = low[column].min(pixel.0[1]);
            high[column] = high[column].max(pixel.0[1]);
        }
    }
    let spans: Vec<u8> = low.iter().zip(&high).map(|(low, high)| high - low).collect();
    let most = spans.iter().copied().max().unwrap_or(0);
    spans.into_iter().map(|span| span < most / EMPTY_SHARE).collect()
}

/// The widest run of empty columns; if there is none, nothing at `even`.
fn widest_gap(empty: &[bool], within: Range<u32>, even: u32) -> Range<u32> {
    let (mut widest, mut start) = (even..even, None);
    for column in within.start..=within.end {
        let is_empty = column < within.end && empty[column as usize];
        match start {
            None if is_empty => start = Some(column),
            Some(from) if !is_empty => {
                if column - from > widest.end - widest.start {
                    widest = from..column;
                }
                start = None;
            }
            _ => {}
        }
    }
    widest
}

/// The text of a line by that of its parts, each with whether a space follows it; and the mean of their scores.
pub(super) fn joined(mut parts: impl ExactSizeIterator<Item = (bool, Text)>) -> Text {
    if parts.len() == 1 {
        return parts.next().map(|(_, text)| text).unwrap_or_default();
    }
    let (mut line, mut sum, mut count) = (String::new(), 0.0, 0.0);
    for (spaced, (text, score)) in parts {
        let chars = text.chars().count() as f32;
        (sum, count) = (sum + score * chars, count + chars);
        line.push_str(&text);
        if spaced && !line.is_empty() && !line.ends_with(' ') {
            line.push(' ');
        }
    }
    line.truncate(line.trim_end().len());
    (line, if count > 0.0 { sum / count } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_seen_in_three_parts_and_a_short_one_whole() {
        let sizes = |width| {
            let line = RgbImage::new(width, 10);
            views(&line).map(|view| view.dimensions()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(200), [(40, 10); 3]);
        assert_eq!(sizes(40), [(40, 10)]);
        assert_eq!(sizes(7), [(7, 10)]);
    }

    #[test]
    fn a_line_too_long_to_be_read_at_once_is_cut_in_its_gaps() {
        // Letters of eight columns with a gap of two, and words of nine letters with one of twelve.
        let is_ink = |x: u32| x % 100 < 88 && x % 10 < 8;
        let line = RgbImage::from_fn(10_000, 48, |x, y| {
            image::Rgb([if is_ink(x) && y % 4 > 1 { 0 } else { 250 }; 3])
        });
        let found = parts(line.clone(), 3_200);
        assert!(
            found.iter().all(|part| part.picture.width() <= 3_200 && part.picture.height() == 48)
        );
        assert_eq!(found.iter().map(|part| part.picture.width()).sum::<u32>(), 10_000);
        let spaced: Vec<bool> = found.iter().map(|part| part.spaced).collect();
        assert_eq!(spaced, [true, true, true, false]);
        let starts = found.iter().map(|part| u32::from(part.picture.get_pixel(0, 2).0[0]));
        assert!(starts.skip(1).all(|first| first == 250), "a letter is cut");
        assert_eq!(parts(line, 10_000).len(), 1);
        let texts = ["One two", "three", "", "four"].map(|text| (text.to_owned(), 0.5));
        assert_eq!(joined(spaced.into_iter().zip(texts)), ("One two three four".to_owned(), 0.5));
        let black = RgbImage::new(10_000, 48);
        assert!(parts(black, 3_200).iter().all(|part| part.picture.width() <= 3_200));
    }

    #[test]
    fn repeats_are_one_character_unless_a_blank_parts_them() {
        let alphabet = Alphabet::parse("a\nb\n");
        assert_eq!(alphabet.len(), 4);
        let columns =
            [(0, 0.9), (1, 0.8), (1, 0.7), (0, 0.9), (1, 0.6), (3, 0.5), (2, 0.9), (0, 1.0)];
        let (text, score) = alphabet.read(columns.into_iter());
        assert_eq!(text, "aa b");
        assert!((score - 0.7).abs() < 1e-6, "{score}");
        assert_eq!(alphabet.read([(0, 1.0)].into_iter()), (String::new(), 0.0));
    }
}
