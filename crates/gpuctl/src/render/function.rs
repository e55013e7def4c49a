//! What the deployed function answered.

use std::fmt::Write;

use gpuctl_control::wire::function::InvokedDocument;

use super::text;

/// What it did and why, each pool as in `gpuctl status`, and what went wrong.
pub(super) fn invoked(document: &InvokedDocument) -> String {
    let answer = &document.answer;
    let mut text = String::new();
    for done in &answer.acted {
        let failed =
            done.error.as_ref().map(|error| format!(" (failed: {error})")).unwrap_or_default();
        let _ = writeln!(text, "{} {} because {}{failed}", done.action, done.r#box, done.reason);
    }
    if let Some(why) = &answer.skipped {
        let _ = writeln!(text, "not looked: {why}; what you asked for is noted, and acted on next");
    }
    for pool in &answer.pools {
        // The function looks, then acts: what it shows is older than what it did.
        let has_acted = answer.acted.iter().any(|done| done.pool == pool.pool);
        let when = if has_acted { ", before that" } else { "" };
        let _ = writeln!(text, "{}: {}{when}", pool.pool, pool.state);
        text::pool(&mut text, pool);
    }
    for error in &answer.errors {
        let _ = writeln!(text, "error: {error}");
    }
    text
}
