//! The response of the deployed function as text.

use gpuctl_control::wire::function::InvokedDocument;

use super::status;
use super::words::Lines;

/// Its actions and why, each pool as in `gpuctl status`, and its errors.
pub(super) fn invoked(document: &InvokedDocument) -> Lines {
    let response = &document.response;
    let mut lines = Lines::default();
    for done in &response.acted {
        let failed =
            done.error.as_ref().map(|error| format!(" (failed: {error})")).unwrap_or_default();
        lines.add(format!("{} {} because {}{failed}", done.action, done.r#box, done.reason));
    }
    if let Some(why) = &response.skipped {
        lines.add(format!(
            "not reconciled: {why}; your request is stored, and the next reconcile acts on it"
        ));
    }
    for pool in &response.pools {
        // The function observes, then acts: the state that it shows is from before its actions.
        let has_acted = response.acted.iter().any(|done| done.pool == pool.pool);
        let when = if has_acted { ", before that" } else { "" };
        lines.add(format!("{}: {}{when}", pool.pool, pool.state));
        status::pool(&mut lines, pool, "");
    }
    for error in &response.errors {
        lines.add(format!("error: {error}"));
    }
    lines
}
