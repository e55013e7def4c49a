//! The fuzz targets' own corpus, each text through its target, and through the others, too.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is the fuzz targets' own library")]
mod targets;

use std::path::Path;

#[test]
fn every_text_of_the_corpus_ends_in_an_answer_or_an_error() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut texts = 0;
    for target in ["policy", "fields", "expression", "span"] {
        for file in corpus.join(target).read_dir().expect("a folder for each target") {
            let path = file.expect("a file").path();
            let text = std::fs::read_to_string(&path).expect("a text");
            targets::policy(&text);
            targets::fields(&text);
            targets::expression(&text);
            targets::span(&text);
            texts += 1;
        }
    }
    assert!(texts > 30, "{texts} texts");
}
