//! The query protocol's requests: a form whose keys number the members of lists, e.g. `Filter.1.Value.2`.

use std::collections::BTreeMap;

use percent_encoding::percent_decode;

/// A call's parameters.
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    pub(super) fn parse(body: &[u8]) -> Self {
        let plain = |bytes: &[u8]| {
            let spaced: Vec<u8> =
                bytes.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
            percent_decode(&spaced).decode_utf8_lossy().into_owned()
        };
        let pair = |part: &[u8]| {
            let at = part.iter().position(|b| *b == b'=').unwrap_or(part.len());
            (plain(&part[..at]), plain(part.get(at + 1..).unwrap_or_default()))
        };
        Self(body.split(|b| *b == b'&').filter(|part| !part.is_empty()).map(pair).collect())
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub(super) fn set(&mut self, key: &str, value: String) {
        self.0.insert(key.to_owned(), value);
    }

    pub(super) fn number(&self, key: &str) -> Option<usize> {
        self.text(key)?.parse().ok()
    }

    /// The texts of `key.1`, `key.2` …
    pub(super) fn list(&self, key: &str) -> Vec<String> {
        (1..).map_while(|n| self.text(&format!("{key}.{n}")).map(str::to_owned)).collect()
    }

    /// The prefixes `key.1`, `key.2` … with at least one parameter.
    pub(super) fn items(&self, key: &str) -> Vec<String> {
        (1..)
            .map(|n| format!("{key}.{n}"))
            .take_while(|prefix| {
                let below = format!("{prefix}.");
                self.0.range(below.clone()..).next().is_some_and(|(key, _)| key.starts_with(&below))
            })
            .collect()
    }

    /// Keys and values of tags.
    pub(super) fn tags(&self, key: &str) -> BTreeMap<String, String> {
        let pair = |item: String| {
            let value = self.text(&format!("{item}.Value")).unwrap_or_default().to_owned();
            Some((self.text(&format!("{item}.Key"))?.to_owned(), value))
        };
        self.items(key).into_iter().filter_map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_tags_are_read_off_their_numbers() {
        let query = Query::parse(
            b"Action=X&Filter.1.Name=tag%3Aa&Filter.1.Value.1=b+c&Filter.1.Value.2=d&Tag.1.Key=k&Tag.1.Value=v%26",
        );
        assert_eq!(query.list("Filter.1.Value"), ["b c", "d"]);
        assert_eq!(query.items("Filter"), ["Filter.1"]);
        assert_eq!(query.tags("Tag"), [("k".to_owned(), "v&".to_owned())].into());
        assert_eq!(query.text("Filter.1.Name"), Some("tag:a"));
    }
}
