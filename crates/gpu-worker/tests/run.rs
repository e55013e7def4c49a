//! `gpu-worker run`: an error is the one that a job's result would have.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::process::{Command, Output};

use serde_json::Value;

#[test]
fn an_input_s_error_has_its_code_and_hint_in_the_document_and_on_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let pdf = folder.path().join("scan.wav");
    std::fs::write(&pdf, b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n").unwrap();
    let docx = folder.path().join("letter.png");
    std::fs::write(&docx, b"PK\x03\x04\x14\0\0\0\0\0word/document.xml").unwrap();
    // The first frames of an MP3 in which each is broken: what Symphonia says of them is in the error, not in the log.
    let mp3 = folder.path().join("broken.mp3");
    std::fs::write(
        &mp3,
        b"\xff\xfb\x90\x64".iter().cycle().take(9_000).copied().collect::<Vec<u8>>(),
    )
    .unwrap();
    for (task, file, code, hint) in [
        ("voice.transcribe", &pdf, "input.wrong_kind", "submit a recording"),
        ("vision.ocr", &docx, "input.wrong_kind", "pdftoppm"),
        ("vision.ocr", &folder.path().join("none"), "input.missing", "input path"),
        ("vision.orc", &pdf, "task.unknown", ""),
        ("voice.transcribe", &mp3, "input.", ""),
    ] {
        let ran = run(&[task, file.to_str().unwrap()]);
        assert_eq!(ran.status.code(), Some(1));
        let document: Value = serde_json::from_slice(&ran.stdout).unwrap();
        let error = |field: &str| document["error"][field].as_str().unwrap();
        assert!(error("code").starts_with(code), "{document}");
        assert!(error("hint").contains(hint), "{document}");
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(said.contains(&format!("[{}]", error("code"))), "{said}");
        assert!(said.contains(&format!("hint: {}", error("hint"))), "{said}");
        assert!(!said.contains("symphonia"), "{said}");
    }
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-worker"));
    command.arg("run").args(arguments).env_remove("GPUCTL_LOG").output().unwrap()
}
