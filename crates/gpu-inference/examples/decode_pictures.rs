//! Decodes pictures and prints a line of JSON for each: its size, pages and a small copy, or the code of its error. For
//! scripts/check-pictures.py. Usage: decode_pictures FILE…

use std::path::Path;

use gpu_inference::{Content, Decoder, Params, Task};
use image::imageops::{self, FilterType};

/// Side of the small copy.
const SIDE: u32 = 16;

#[expect(clippy::print_stdout, reason = "an example of its own")]
fn main() {
    for path in std::env::args().skip(1) {
        let line = described(Path::new(&path));
        println!("{}", serde_json::json!({ "file": path, "found": line }));
    }
}

fn described(path: &Path) -> serde_json::Value {
    let prepared = match Decoder::default().decode(Task::VisionOcr, path, &Params::default()) {
        Ok(prepared) => prepared,
        Err(error) => {
            return serde_json::json!({ "code": error.code(), "message": error.to_string() });
        }
    };
    let Content::Picture(picture) = prepared.content() else { return serde_json::Value::Null };
    let first = picture.rgb();
    let small = imageops::resize(first, SIDE, SIDE, FilterType::Triangle);
    serde_json::json!({
        "size": [first.width(), first.height()],
        "pages": picture.pages_total(),
        "small": small.as_raw(),
    })
}
