//! `doctor`'s findings: a check that passed, warns or failed.

use crate::documents::reply::CheckDocument;
use crate::failure::Failure;

pub(super) fn pass(name: &'static str, detail: impl Into<String>) -> CheckDocument {
    CheckDocument { name, status: "pass", detail: detail.into(), fix: None }
}

pub(super) fn warn(
    name: &'static str,
    detail: impl Into<String>,
    fix: impl Into<String>,
) -> CheckDocument {
    CheckDocument { name, status: "warn", detail: detail.into(), fix: Some(fix.into()) }
}

pub(super) fn fail(name: &'static str, failure: &Failure) -> CheckDocument {
    let causes = failure.causes.iter().map(|cause| format!(": {cause}")).collect::<String>();
    let detail = format!("{}{causes}", failure.message);
    CheckDocument { name, status: "fail", detail, fix: failure.hint.clone() }
}
