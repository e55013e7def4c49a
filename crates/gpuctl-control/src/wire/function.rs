//! What the deployed function is asked and what it answers: it, and who asks it, are written from the same documents.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::status::PoolDocument;

/// A person's word, as the function takes it for an event.
#[derive(Clone, Debug, Serialize)]
pub struct EventDocument {
    /// `start`, `stop`, `release` or `status`.
    pub action: &'static str,
    /// A pool, or `all`.
    pub target: String,
    /// How long a start or stop holds.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasts: Option<String>,
    /// Who asks.
    pub by: String,
}

/// One action of the function, and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ActedDocument {
    /// The pool.
    pub pool: String,
    /// The box.
    pub r#box: String,
    /// `start`, `stop` or `force-stop`.
    pub action: String,
    /// Why.
    pub reason: String,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// What is read of an answer. It has more than this, and a newer function's may have more still.
#[derive(Clone, Debug, Deserialize)]
pub struct FunctionAnswer {
    /// 200, or 503 where nothing could be looked at.
    #[serde(rename = "statusCode")]
    pub status_code: u16,
    /// Each pool, as in `gpuctl.status`.
    #[serde(default)]
    pub pools: Vec<PoolDocument>,
    /// What was done.
    #[serde(default)]
    pub acted: Vec<ActedDocument>,
    /// Why nothing was looked at, where that is no failure.
    pub skipped: Option<String>,
    /// What went wrong.
    pub errors: Vec<String>,
}

/// An answer, and the document that it was read from.
#[derive(Clone, Debug)]
pub struct InvokedDocument {
    /// All of it, as the function wrote it.
    pub document: Value,
    /// What is shown of it.
    pub answer: FunctionAnswer,
}

impl InvokedDocument {
    /// Reads an answer.
    ///
    /// # Errors
    /// When it is not one of gpuctl's function.
    pub fn read(document: Value) -> Result<Self, serde_json::Error> {
        let answer = FunctionAnswer::deserialize(&document)?;
        Ok(Self { document, answer })
    }

    /// Whether all was read and done.
    #[must_use]
    pub fn is_success(&self) -> bool {
        let answer = &self.answer;
        answer.status_code == 200
            && answer.errors.is_empty()
            && answer.acted.iter().all(|done| done.error.is_none())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_of_something_else_is_none() {
        for document in [json!(null), json!({"statusCode": 200, "body": "hello"}), json!([1])] {
            assert!(InvokedDocument::read(document).is_err());
        }
    }

    #[test]
    fn a_failed_action_and_any_error_are_no_success() {
        let read = |document: Value| InvokedDocument::read(document).unwrap().is_success();
        assert!(read(json!({"statusCode": 200, "errors": [], "skipped": "busy", "new": 1})));
        assert!(!read(json!({"statusCode": 503, "errors": []})));
        assert!(!read(json!({"statusCode": 200, "errors": ["no pool"]})));
        let acted =
            json!({"pool": "a", "box": "b", "action": "start", "reason": "c", "error": "d"});
        assert!(!read(json!({"statusCode": 200, "errors": [], "acted": [acted]})));
    }
}
