//! Keys of the HTTP API: who may call it, and for what. A ledger keeps their digests; the key itself is shown once, when it is made.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use gpuctl_core::units::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::ports::{PortError, PortErrorClass};
use crate::text::hexadecimal;

/// The most keys that a ledger keeps, revoked ones included.
pub const KEYS_MAX: usize = 1_000;
/// The longest name of a key.
const NAME_CHARS_MAX: usize = 64;
/// What every key begins with: scanners for secrets find it by that.
const PREFIX: &str = "gpuctl_";

/// What a key allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// To read jobs, results, and what is up.
    Read,
    /// To submit jobs, and to cancel them or send them again.
    Submit,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 2] = [Self::Read, Self::Submit];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        found.ok_or_else(|| "a scope is `read` or `submit`".to_owned())
    }
}

/// The name of a key: that of the program that has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if text.is_empty() || text.len() > NAME_CHARS_MAX || !text.chars().all(is_plain) {
            return Err(format!(
                "a key's name has 1 to {NAME_CHARS_MAX} letters, digits, `-`, `_` and `.`"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A key, as a ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    pub name: KeyName,
    /// Of the key itself, which no one can find from it.
    pub digest: String,
    pub scopes: BTreeSet<Scope>,
    pub created_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub used_at: Option<Timestamp>,
}

impl ApiKey {
    /// A new key, and what its program sends. It has 244 random bits, so that its digest needs no salt.
    #[must_use]
    pub fn new(name: KeyName, scopes: BTreeSet<Scope>, at: Timestamp) -> (Self, String) {
        let secret =
            format!("{PREFIX}{}{}", Uuid::new_v4().as_simple(), Uuid::new_v4().as_simple());
        let digest = digest(&secret);
        (Self { name, digest, scopes, created_at: at, revoked_at: None, used_at: None }, secret)
    }
}

/// By which a key that a program sends is found.
#[must_use]
pub fn digest(secret: &str) -> String {
    hexadecimal(&Sha256::digest(secret.as_bytes()))
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// It may no longer be used. A key that was revoked before keeps that time.
    Revoked(Timestamp),
    /// It was used. An earlier time than the one that is noted changes nothing.
    Used(Timestamp),
}

/// Why a key is not added.
#[must_use]
pub fn taken(name: &KeyName) -> PortError {
    let what = format!("there is a key `{name}` already, or there are {KEYS_MAX}");
    PortError::new(PortErrorClass::Conflict, what).hint(
        "`gpuctl keys list` shows all; a name is not used again, also after its key is revoked",
    )
}

/// Why a key is not changed.
#[must_use]
pub fn unknown(name: &KeyName) -> PortError {
    let what = format!("there is no key `{name}`");
    PortError::new(PortErrorClass::NotFound, what).hint("`gpuctl keys list` shows all")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_digest_alone_and_no_two_are_equal() {
        let at = Timestamp::UNIX_EPOCH;
        let (key, secret) = ApiKey::new("app-1".parse().unwrap(), BTreeSet::from(Scope::ALL), at);
        assert_eq!((key.digest.len(), &digest(&secret)), (64, &key.digest));
        assert!(secret.starts_with(PREFIX) && secret.len() == PREFIX.len() + 64, "{secret}");
        assert!(!format!("{key:?}").contains(&secret));
        let (other, _) = ApiKey::new(key.name.clone(), key.scopes.clone(), at);
        assert_ne!(other.digest, key.digest);
    }

    #[test]
    fn names_and_scopes_are_plain() {
        for bad in ["", "a b", "é", "a/b", &"a".repeat(65)] {
            assert!(bad.parse::<KeyName>().is_err(), "{bad}");
        }
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
        assert!("write".parse::<Scope>().is_err());
    }
}
