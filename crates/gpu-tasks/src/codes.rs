//! What the codes of errors and warnings mean, as `TASKS.md` says: a test of the worker compares its tables with the sources.

const PAGE: &str = include_str!("../TASKS.md");

/// What a code means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeMeaning {
    /// Of an error: `the input`, `the box`, `a service` or `a user`; a warning blames nothing.
    pub blamed_on: Option<&'static str>,
    /// The sentence of the table.
    pub meaning: String,
}

/// What the code of an error or warning of a job means; `None` if there is no such code.
///
/// ```
/// let found = gpu_tasks::meaning_of("input.memory").unwrap();
/// assert_eq!(found.blamed_on, Some("the input"));
/// assert!(found.meaning.contains("more memory"));
/// assert_eq!(gpu_tasks::meaning_of("input.nothing_like_it"), None);
/// ```
#[must_use]
pub fn meaning_of(code: &str) -> Option<CodeMeaning> {
    let quoted = format!("`{code}`");
    PAGE.lines().find_map(|line| {
        let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
        let is_listed = cells.next()?.split(", ").any(|one| one == quoted);
        let (second, third) = (cells.next()?, cells.next());
        is_listed.then(|| CodeMeaning {
            blamed_on: third.map(|_| second),
            meaning: without_links(third.unwrap_or(second)),
        })
    })
}

/// The text without the addresses of its links.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        plain.push_str(&before.replace('[', ""));
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_warnings_are_found_without_links() {
        let failed = meaning_of("command.failed").unwrap();
        assert_eq!(failed.meaning, "the program of a command ended with another exit code than 0");
        let warning = meaning_of("picture.shrunk").unwrap();
        assert_eq!(warning.blamed_on, None);
        assert_eq!(meaning_of("input.key_too_long").unwrap().blamed_on, Some("the input"));
        assert_eq!(meaning_of(""), None);
    }
}
