//! Text as a language model's tokens, by the model's own `tokenizer.json`.
//!
//! That file also sets padding and truncation as its exporter had them, often wrongly for this use (MiniLM's pads every
//! text to 128); so both are switched off and done here.

use gpu_tasks::WarningCode;
use ndarray::Array2;
use tokenizers::{Tokenizer, TruncationParams};

use crate::input::Load;
use crate::output::Remarks;
use crate::preparation::Form;

/// What stands for a word that a vocabulary lacks: BERT's, and that of SentencePiece.
const UNKNOWN: [&str; 2] = ["[UNK]", "<unk>"];

/// An opened tokenizer.
pub(crate) struct Tokens {
    tokenizer: Tokenizer,
    unknown: Option<u32>,
}

/// One text's tokens, special ones included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) ids: Vec<i64>,
    /// Whether the text was longer than the model takes, and was cut.
    pub(crate) truncated: bool,
    /// How many tokens are not special, and how many of these stand for what the vocabulary lacks.
    pub(crate) own: usize,
    pub(crate) unknown: usize,
}

impl Form for Encoded {
    fn load(&self) -> Load {
        let tokens = self.ids.len() as u64;
        let shape_bucket = u64::from(tokens.next_power_of_two().ilog2());
        Load { bytes: Self::bytes_max(self.ids.len()), cost: tokens, shape_bucket }
    }
}

impl Encoded {
    /// The most memory that this many tokens take.
    pub(crate) fn bytes_max(tokens: usize) -> u64 {
        tokens as u64 * size_of::<i64>() as u64
    }

    /// Warns where half of the text or more is unknown to the model: then every such text is the same to it.
    pub(crate) fn remark(&self, remarks: &mut Remarks) {
        let Self { own, unknown, .. } = self;
        if *unknown > 0 && unknown * 2 >= *own {
            let message = format!(
                "{unknown} of the text's {own} tokens stand for words that the model does not know"
            );
            remarks.warn(WarningCode::TextUnknown, message);
        }
    }
}

/// Several texts' tokens, as long as the longest.
pub(crate) struct Padded {
    pub(crate) ids: Array2<i64>,
    /// 1 where a token is, 0 where padding is.
    pub(crate) mask: Array2<i64>,
}

impl Tokens {
    /// Reads a `tokenizer.json`; texts are cut to `length_max` tokens.
    pub(crate) fn open(bytes: &[u8], length_max: usize) -> Result<Self, String> {
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| error.to_string())?;
        tokenizer.with_padding(None);
        let truncation = TruncationParams { max_length: length_max, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(|error| error.to_string())?;
        let unknown = UNKNOWN.iter().find_map(|name| tokenizer.token_to_id(name));
        Ok(Self { tokenizer, unknown })
    }

    /// The tokens of a text.
    pub(crate) fn encode(&self, text: &str) -> Result<Encoded, String> {
        let encoding = self.tokenizer.encode(text, true).map_err(|error| error.to_string())?;
        let special = encoding.get_special_tokens_mask();
        let own = encoding.get_ids().iter().zip(special).filter(|(_, special)| **special == 0);
        let own: Vec<u32> = own.map(|(&id, _)| id).collect();
        Ok(Encoded {
            own: own.len(),
            unknown: own.iter().filter(|&&id| Some(id) == self.unknown).count(),
            ids: encoding.get_ids().iter().map(|&id| id.into()).collect(),
            truncated: !encoding.get_overflowing().is_empty(),
        })
    }
}

/// Pads to the longest, or to `length` if that is more.
pub(crate) fn pad(texts: &[&Encoded], pad_id: i64, length: usize) -> Padded {
    let longest = texts.iter().map(|text| text.ids.len()).max().unwrap_or(0).max(length);
    let mut ids = Array2::from_elem((texts.len(), longest), pad_id);
    let mut mask = Array2::zeros((texts.len(), longest));
    for (row, text) in texts.iter().enumerate() {
        for (column, &id) in text.ids.iter().enumerate() {
            ids[[row, column]] = id;
            mask[[row, column]] = 1;
        }
    }
    Padded { ids, mask }
}

/// The texts' indices in groups of like length, none with more than `tokens_max` tokens after padding or `rows_max` rows.
pub(crate) fn groups(
    texts: &[impl AsRef<Encoded>],
    rows_max: usize,
    tokens_max: usize,
) -> Vec<Vec<usize>> {
    let mut indices: Vec<usize> = (0..texts.len()).collect();
    let length = |index: usize| texts[index].as_ref().ids.len();
    indices.sort_by_key(|&index| length(index));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for index in indices {
        let length = length(index);
        match groups.last_mut() {
            Some(group) if group.len() < rows_max && (group.len() + 1) * length <= tokens_max => {
                group.push(index);
            }
            _ => groups.push(vec![index]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(length: usize) -> Encoded {
        Encoded { ids: vec![7; length], truncated: false, own: length, unknown: 0 }
    }

    #[test]
    fn texts_of_like_length_share_a_group_within_its_budget() {
        let texts = [5, 100, 4, 90, 6].map(|length| std::sync::Arc::new(of(length)));
        assert_eq!(groups(&texts, 8, 200), [vec![2, 0, 4], vec![3, 1]]);
        assert_eq!(groups(&texts, 2, 150), [vec![2, 0], vec![4], vec![3], vec![1]]);
    }

    #[test]
    fn padding_is_masked() {
        let padded = pad(&[&of(2), &of(3)], 1, 4);
        assert_eq!(padded.ids.row(0).to_vec(), [7, 7, 1, 1]);
        assert_eq!(padded.mask.row(1).to_vec(), [1, 1, 1, 0]);
    }
}
