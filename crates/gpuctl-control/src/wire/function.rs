//! Events and responses of the deployed function, for the function and for those that call it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::status::PoolDocument;

/// A command, as an event of the function.
#[derive(Clone, Debug, Serialize)]
pub struct EventDocument {
    /// `start`, `stop`, `release` or `status`.
    pub action: &'static str,
    /// A pool, or `all`.
    pub target: String,
    /// How long a start or stop holds, e.g. `2h`.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub length: Option<String>,
    /// The user who asks.
    pub by: String,
}

/// One action of the function, and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ActedDocument {
    pub pool: String,
    pub r#box: String,
    /// `start`, `stop` or `force-stop`.
    pub action: String,
    pub reason: String,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// What is read of a response. It has more fields, and that of a newer function may have more still.
#[derive(Clone, Debug, Deserialize)]
pub struct FunctionResponse {
    /// 200, or 503 where the ledger could not be reached and nothing was done.
    #[serde(rename = "statusCode")]
    pub status_code: u16,
    /// Each pool, as in `gpuctl.status`.
    #[serde(default)]
    pub pools: Vec<PoolDocument>,
    #[serde(default)]
    pub acted: Vec<ActedDocument>,
    /// Why no reconcile was made, where that is not a failure.
    pub skipped: Option<String>,
    pub errors: Vec<String>,
}

/// A response, and the document that it was read from.
#[derive(Clone, Debug)]
pub struct InvokedDocument {
    /// All of it, as the function wrote it.
    pub document: Value,
    /// What is shown of it.
    pub response: FunctionResponse,
}

impl InvokedDocument {
    /// Reads a response.
    ///
    /// # Errors
    /// When the document is not a response of gpuctl's function.
    pub fn read(document: Value) -> Result<Self, serde_json::Error> {
        let response = FunctionResponse::deserialize(&document)?;
        Ok(Self { document, response })
    }

    /// Whether everything was read and done.
    #[must_use]
    pub fn is_success(&self) -> bool {
        let response = &self.response;
        response.status_code == 200
            && response.errors.is_empty()
            && response.acted.iter().all(|done| done.error.is_none())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_response_of_another_function_is_rejected() {
        for document in [json!(null), json!({"statusCode": 200, "body": "hello"}), json!([1])] {
            assert!(InvokedDocument::read(document).is_err());
        }
    }

    #[test]
    fn a_failed_action_or_any_error_is_not_a_success() {
        let read = |document: Value| InvokedDocument::read(document).unwrap().is_success();
        assert!(read(json!({"statusCode": 200, "errors": [], "skipped": "busy", "new": 1})));
        assert!(!read(json!({"statusCode": 503, "errors": []})));
        assert!(!read(json!({"statusCode": 200, "errors": ["no pool"]})));
        let acted =
            json!({"pool": "a", "box": "b", "action": "start", "reason": "c", "error": "d"});
        assert!(!read(json!({"statusCode": 200, "errors": [], "acted": [acted]})));
    }
}
