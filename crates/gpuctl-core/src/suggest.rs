//! "Did you mean …?" for names that a user mistyped.
//!
//! Being near in spelling says something about long names alone: one letter in three is another word (`app` for `gpu`), and another
//! continent among zones (`EST` for `JST`).

/// Names of at most this many characters are only suggested if nothing but their case differs.
const SHORT_CHARS_MAX: usize = 4;

/// Longer texts are no mistyped names, and comparing them takes long.
const COMPARED_CHARS_MAX: usize = 64;

/// The sentence "did you mean `NAME`?" with the known name that is closest to `wrong`; `None` if none is close.
#[must_use]
pub fn did_you_mean<'k>(wrong: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    nearest(wrong, known).map(|name| format!("did you mean `{name}`?"))
}

/// The known name that is closest to `wrong`: the same in another case, else one with few typing mistakes.
pub fn nearest<'k>(wrong: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let wrong = wrong.trim();
    let chars = wrong.chars().count();
    if chars > COMPARED_CHARS_MAX {
        return None;
    }
    let lower = wrong.to_lowercase();
    let near = |name: &'k str| {
        let other = name.to_lowercase();
        if other == lower {
            return Some((0, name));
        }
        let short = name.chars().count() <= SHORT_CHARS_MAX;
        let mistakes_max = (chars / 4).max(1);
        let alike = name.chars().count().abs_diff(chars) <= mistakes_max;
        // The case counts as a mistake less than a letter: `Max_wait` is nearer to `max_wait` than to `max_weight`.
        let mistakes = (!short && alike).then(|| strsim::damerau_levenshtein(&lower, &other))?;
        (mistakes <= mistakes_max).then_some((mistakes, name))
    };
    known.into_iter().filter_map(near).min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_close_name_is_suggested() {
        let known = ["max_wait", "queue", "command"];
        assert_eq!(did_you_mean("max_wiat", known).as_deref(), Some("did you mean `max_wait`?"));
        assert_eq!(did_you_mean(" MAX_WAIT", known).as_deref(), Some("did you mean `max_wait`?"));
        assert_eq!(did_you_mean("region", known), None);
        assert_eq!(did_you_mean(&"max_wait".repeat(100_000), known), None);
    }

    #[test]
    fn short_names_are_suggested_in_another_case_alone() {
        assert_eq!(nearest("gpu", ["app"]), None);
        assert_eq!(nearest("JST", ["EST", "Asia/Tokyo"]), None);
        assert_eq!(nearest("est", ["EST", "Asia/Tokyo"]), Some("EST"));
        assert_eq!(nearest("", ["GB"]), None);
    }
}
