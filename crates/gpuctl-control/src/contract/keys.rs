//! What a ledger guarantees of keys.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use gpuctl_core::units::Timestamp;

use super::Subject;
use crate::keys::{ApiKey, KeyChange, Scope};
use crate::ports::PortErrorClass;

/// A name has one key for good, whose digest and scopes come back.
pub async fn a_key_is_kept_under_its_name(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let now = whole(subject.ports().clock.now());
    let (app, _) = ApiKey::new("app".parse().unwrap(), BTreeSet::from(Scope::ALL), now);
    let (other, _) = ApiKey::new("other".parse().unwrap(), BTreeSet::from([Scope::Read]), now);
    ledger.add_key(&app).await.unwrap();
    ledger.add_key(&other).await.unwrap();
    assert_eq!(of(subject, &["app", "other"]).await, [app.clone(), other]);
    let (again, _) = ApiKey::new(app.name.clone(), BTreeSet::from([Scope::Read]), now);
    let error = ledger.add_key(&again).await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::Conflict);
    assert_eq!(of(subject, &["app"]).await, [app]);
}

/// A revoked key stays revoked, also while its use is noted; the first time and the last use count.
pub async fn a_revoked_key_stays_so(subject: &dyn Subject) {
    let ledger = &subject.ports().ledger;
    let now = whole(subject.ports().clock.now());
    let (key, _) = ApiKey::new("leaked".parse().unwrap(), BTreeSet::from(Scope::ALL), now);
    ledger.add_key(&key).await.unwrap();
    let later = |minutes| now + TimeDelta::minutes(minutes);
    for change in [
        KeyChange::Used(later(2)),
        KeyChange::Revoked(later(3)),
        KeyChange::Used(later(1)),
        KeyChange::Revoked(later(4)),
    ] {
        ledger.change_key(&key.name, change).await.unwrap();
    }
    let revoked = ApiKey { revoked_at: Some(later(3)), used_at: Some(later(2)), ..key.clone() };
    assert_eq!(of(subject, &["leaked"]).await, [revoked]);
    let none = "none".parse().unwrap();
    let error = ledger.change_key(&none, KeyChange::Revoked(now)).await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::NotFound);
}

async fn of(subject: &dyn Subject, names: &[&str]) -> Vec<ApiKey> {
    let mut keys = subject.ports().ledger.keys().await.unwrap();
    keys.retain(|key| names.contains(&key.name.as_str()));
    keys
}

/// As stores keep it: to the microsecond.
fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_timestamp_micros(at.timestamp_micros()).unwrap()
}
