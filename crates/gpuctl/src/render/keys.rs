//! Keys of the HTTP API as text.

use super::words::{Lines, short};
use crate::documents::reply::{KeyCreatedDocument, KeyDocument, KeysDocument};

pub(super) fn created(document: &KeyCreatedDocument) -> Lines {
    let mut lines = Lines::of(document.key.clone());
    lines.add(format!(
        "key `{}` may {}; it is shown only now: send it as `Authorization: Bearer KEY`",
        document.about.name,
        document.about.scopes.join(" and ")
    ));
    lines
}

pub(super) fn list(document: &KeysDocument) -> Lines {
    if document.keys.is_empty() {
        return Lines::of("no keys: programs of this machine need none");
    }
    let mut lines =
        Lines::of(format!("{:<24}  {:<12}  {:<20}  LAST USED", "KEY", "SCOPES", "CREATED"));
    document.keys.iter().for_each(|key| lines.add(line(key)));
    lines
}

fn line(key: &KeyDocument) -> String {
    let at = |at: &Option<String>| at.as_deref().map_or_else(|| "never".to_owned(), short);
    let revoked = key.revoked_at.as_deref().map(|at| format!("  revoked {}", short(at)));
    format!(
        "{:<24}  {:<12}  {:<20}  {}{}",
        key.name,
        key.scopes.join(","),
        short(&key.created_at),
        at(&key.used_at),
        revoked.unwrap_or_default()
    )
}
