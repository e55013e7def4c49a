//! Keys of the HTTP API in the queue file.

use std::collections::BTreeSet;

use gpuctl_control::keys::{ApiKey, KEYS_MAX, KeyChange, KeyName, Scope};
use rusqlite::types::Type;
use rusqlite::{Connection, Row, Transaction, params};

use crate::time::{micros, timestamp};

pub(crate) fn all(c: &Connection) -> rusqlite::Result<Vec<ApiKey>> {
    c.prepare_cached(
        "SELECT name, digest, scopes, created_at, revoked_at, used_at FROM keys ORDER BY name",
    )?
    .query_map([], key)?
    .collect()
}

fn key(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    fn parsed<T: std::str::FromStr<Err = String>>(at: usize, text: &str) -> rusqlite::Result<T> {
        text.parse().map_err(|error: String| {
            rusqlite::Error::FromSqlConversionFailure(at, Type::Text, error.into())
        })
    }
    let scopes: String = row.get(2)?;
    let scopes: rusqlite::Result<BTreeSet<Scope>> =
        scopes.split_whitespace().map(|scope| parsed(2, scope)).collect();
    let time_if = |at| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(at)?.map(timestamp));
    Ok(ApiKey {
        name: parsed(0, &row.get::<_, String>(0)?)?,
        digest: row.get(1)?,
        scopes: scopes?,
        created_at: timestamp(row.get(3)?),
        revoked_at: time_if(4)?,
        used_at: time_if(5)?,
    })
}

/// Whether it was added: not where its name is taken, or there are too many.
pub(crate) fn add(tx: &Transaction<'_>, key: &ApiKey) -> rusqlite::Result<bool> {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    let added = tx
        .prepare_cached(
            "INSERT INTO keys SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE (SELECT count(*) FROM keys) < ?7 ON CONFLICT (name) DO NOTHING",
        )?
        .execute(params![
            key.name.as_str(),
            key.digest,
            scopes.join(" "),
            micros(key.created_at),
            key.revoked_at.map(micros),
            key.used_at.map(micros),
            KEYS_MAX,
        ])?;
    Ok(added == 1)
}

/// Whether there is such a key.
pub(crate) fn change(
    tx: &Transaction<'_>,
    name: &KeyName,
    change: KeyChange,
) -> rusqlite::Result<bool> {
    let (sql, at) = match change {
        KeyChange::Revoked(at) => {
            ("UPDATE keys SET revoked_at = coalesce(revoked_at, ?2) WHERE name = ?1", at)
        }
        KeyChange::Used(at) => {
            ("UPDATE keys SET used_at = max(coalesce(used_at, 0), ?2) WHERE name = ?1", at)
        }
    };
    let changed = tx.prepare_cached(sql)?.execute(params![name.as_str(), micros(at)])?;
    Ok(changed == 1)
}
