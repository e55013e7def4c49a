//! `keys`: who may call the HTTP API.

use std::collections::BTreeSet;

use gpuctl_control::keys::{ApiKey, KeyChange, KeyName, Scope, unknown};

use crate::arguments::KeysCommand;
use crate::context::Context;
use crate::documents::reply::{KeyCreatedDocument, KeyDocument, KeysDocument};
use crate::failure::Failure;
use crate::render::Output;

/// `gpuctl keys …`.
pub(super) async fn run(context: &Context, command: &KeysCommand) -> Result<Output, Failure> {
    match command {
        KeysCommand::Create { name, scopes } => create(context, name, scopes).await,
        KeysCommand::List => list(context).await,
        KeysCommand::Revoke { name } => revoke(context, name).await,
    }
}

async fn create(context: &Context, name: &KeyName, scopes: &[Scope]) -> Result<Output, Failure> {
    let scopes: BTreeSet<Scope> = scopes.iter().copied().collect();
    let (key, secret) = ApiKey::new(name.clone(), scopes, context.now());
    context.ports.ledger.add_key(&key).await?;
    Ok(Output::KeyCreated(KeyCreatedDocument { key: secret, about: KeyDocument::of(&key) }))
}

async fn list(context: &Context) -> Result<Output, Failure> {
    let keys = context.ports.ledger.keys().await?;
    Ok(Output::Keys(KeysDocument { keys: keys.iter().map(KeyDocument::of).collect() }))
}

async fn revoke(context: &Context, name: &KeyName) -> Result<Output, Failure> {
    let ledger = &context.ports.ledger;
    ledger.change_key(name, KeyChange::Revoked(context.now())).await?;
    let keys = ledger.keys().await?;
    let key = keys.iter().find(|key| key.name == *name).ok_or_else(|| unknown(name))?;
    Ok(Output::Keys(KeysDocument { keys: vec![KeyDocument::of(key)] }))
}
