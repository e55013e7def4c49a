//! The response of the deployed function.

use std::fmt::Write;

use gpuctl_control::wire::function::InvokedDocument;

use super::text;

/// Its actions and why, each pool as in `gpuctl status`, and its errors.
pub(super) fn invoked(document: &InvokedDocument) -> String {
    let response = &document.response;
    let mut text = String::new();
    for done in &response.acted {
        let failed =
            done.error.as_ref().map(|error| format!(" (failed: {error})")).unwrap_or_default();
        let _ = writeln!(text, "{} {} because {}{failed}", done.action, done.r#box, done.reason);
    }
    if let Some(why) = &response.skipped {
        let _ = writeln!(
            text,
            "not reconciled: {why}; your request is stored, and the next reconcile acts on it"
        );
    }
    for pool in &response.pools {
        // The function observes, then acts: the state that it shows is from before its actions.
        let has_acted = response.acted.iter().any(|done| done.pool == pool.pool);
        let when = if has_acted { ", before that" } else { "" };
        let _ = writeln!(text, "{}: {}{when}", pool.pool, pool.state);
        text::pool(&mut text, pool);
    }
    for error in &response.errors {
        let _ = writeln!(text, "error: {error}");
    }
    text
}
