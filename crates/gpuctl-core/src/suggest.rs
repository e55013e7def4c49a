//! "Did you mean …?" for names that a user mistyped.

/// The sentence "did you mean `NAME`?" with the known name that is closest to `wrong`; `None` if none is close.
#[must_use]
pub fn did_you_mean<'k>(wrong: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    // One mistake in three letters: of two, three letters would be another word (`app` for `gpu`).
    let distance_max = (wrong.len() / 3).max(1);
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|(distance, _)| *distance <= distance_max)
        .min()
        .map(|(_, name)| format!("did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_close_name_is_suggested() {
        let known = ["max_wait", "queue", "command"];
        assert_eq!(did_you_mean("max_wiat", known).as_deref(), Some("did you mean `max_wait`?"));
        assert_eq!(did_you_mean("region", known), None);
        assert_eq!(did_you_mean("gpu", ["app"]), None);
    }
}
