//! Runs each text of the fuzz targets' corpus through its target.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is the fuzz targets' own library")]
mod targets;

use std::path::Path;

#[test]
fn every_text_of_the_corpus_is_parsed_or_rejected() {
    run("policy", targets::policy);
    run("fields", targets::fields);
    run("expression", targets::expression);
    run("span", targets::span);
}

#[track_caller]
fn run(name: &str, target: fn(&str)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let texts: Vec<String> = folder
        .read_dir()
        .expect("a folder for each target")
        .map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("a text"))
        .collect();
    assert!(!texts.is_empty(), "{name}");
    texts.iter().for_each(|text| target(text));
}
