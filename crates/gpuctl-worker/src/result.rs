//! The files of a result, as the result's document lists them.

use gpuctl_control::text::hexadecimal;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::OutputFile;

/// A file of a result: one entry of an output's `files`.
#[derive(Clone, Debug, Serialize)]
pub struct FileDocument {
    pub name: String,
    /// Where it is stored; `null` where nothing asked for it to be stored.
    pub uri: Option<String>,
    pub bytes: u64,
    /// In 64 hexadecimal digits.
    pub sha256: String,
    /// E.g. `audio/wav`.
    pub media_type: String,
}

/// A file's entry; `uri` is where it is stored, `None` if it is not.
#[must_use]
pub fn file_document(file: &OutputFile, uri: Option<String>) -> FileDocument {
    FileDocument {
        name: file.name.clone(),
        uri,
        bytes: file.bytes.len() as u64,
        sha256: hexadecimal(&Sha256::digest(&file.bytes)),
        media_type: file.media_type.clone(),
    }
}

/// Adds the list of files to an output; none adds nothing.
#[must_use]
pub fn with_files(mut output: Value, files: &[FileDocument]) -> Value {
    if let (Some(fields), false) = (output.as_object_mut(), files.is_empty()) {
        let files = serde_json::to_value(files).expect("a document of texts and numbers is JSON");
        fields.insert("files".to_owned(), files);
    }
    output
}
