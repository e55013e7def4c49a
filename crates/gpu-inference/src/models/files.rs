//! A model's files, compared with its manifest: ONNX Runtime itself does not notice a swapped file.

use std::fmt::Write as _;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::error::ModelError;
use super::manifest::ModelFile;

/// The content of a file, if it is the one that the manifest means.
pub(crate) fn verified_bytes(
    folder: &Path,
    model: &str,
    file: &ModelFile,
) -> Result<Vec<u8>, ModelError> {
    let model = || model.to_owned();
    let path = folder.join(&file.path);
    let missing = |source| ModelError::FileMissing { model: model(), path: path.clone(), source };
    // The size first: a wrong file may be too large to read.
    let found = std::fs::metadata(&path).map_err(missing)?.len();
    if found != file.size_bytes {
        let expected = file.size_bytes;
        return Err(ModelError::FileSize { model: model(), path, expected, found });
    }
    let bytes = std::fs::read(&path).map_err(missing)?;
    let found = hexadecimal(&Sha256::digest(&bytes));
    if found != file.sha256 {
        let expected = file.sha256.clone();
        return Err(ModelError::FileHash { model: model(), path, expected, found });
    }
    Ok(bytes)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}
