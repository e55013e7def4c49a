//! Lines and their text: what the angle model sees of a line, and the recogniser's most likely classes decoded (CTC).

use image::{RgbImage, imageops};
use ort::session::Session;
use ort::value::ValueType;

use super::{LINE_HEIGHT, angle};

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
