//! Foreign text in errors: cut to a length that a result can hold. It comes from inputs, programs and ONNX Runtime.

use std::path::Path;

/// Longest foreign text that an error repeats, in bytes.
pub(crate) const FOREIGN_TEXT_MAX: usize = 1 << 10;
/// What stands for the rest.
const CUT: char = '…';

/// The text, or its beginning.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > FOREIGN_TEXT_MAX {
        text.truncate(text.floor_char_boundary(FOREIGN_TEXT_MAX - CUT.len_utf8()));
        text.push(CUT);
    }
    text
}

/// What an error says, without its causes.
pub(crate) fn said(error: &dyn std::error::Error) -> String {
    cut(error.to_string())
}

/// A path for an error.
pub(crate) fn path(path: &Path) -> String {
    cut(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_two_characters_and_says_so() {
        for text in ["x".repeat(5_000), "é".repeat(5_000), "漢".repeat(5_000)] {
            let cut = cut(text.clone());
            assert!(cut.len() <= FOREIGN_TEXT_MAX && cut.len() > FOREIGN_TEXT_MAX - 8);
            assert!(text.starts_with(cut.strip_suffix(CUT).unwrap()));
        }
        assert_eq!(cut("x".repeat(FOREIGN_TEXT_MAX)).len(), FOREIGN_TEXT_MAX);
    }
}
