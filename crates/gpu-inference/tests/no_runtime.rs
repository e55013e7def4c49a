//! How ONNX Runtime fails to load. A binary of its own, since once one is loaded the process keeps it.

use std::path::Path;

use gpu_inference::{Runtime, RuntimeError, RuntimeOptions};

#[test]
fn a_missing_library_and_one_that_is_none_are_told_apart() {
    let load = |path: &Path| Runtime::load(path, RuntimeOptions::default()).unwrap_err();
    let missing = load(Path::new("/nowhere/libonnxruntime.so"));
    assert_eq!(missing.to_string(), "no ONNX Runtime at /nowhere/libonnxruntime.so");
    assert!(missing.hint().contains("ORT_DYLIB_PATH"));
    let text = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(text.path(), "not a library").unwrap();
    assert!(matches!(load(text.path()), RuntimeError::NotALibrary { .. }));
    // A library, but not this one.
    let other = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6"];
    let other = other.map(Path::new).into_iter().find(|path| path.exists()).expect("Debian's libm");
    let error = load(other);
    assert!(matches!(error, RuntimeError::NotALibrary { .. }), "{error}");
}

#[test]
fn an_explicit_library_goes_before_everything_else() {
    let path = Path::new("/some/libonnxruntime.so");
    assert_eq!(Runtime::locate(Some(path)).unwrap(), path);
}
