//! Lists the files of `infra/boot`, which the program carries.

use std::fmt::Write;
use std::path::{Path, PathBuf};

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/boot");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", folder.display());
    let entries = folder.read_dir().into_iter().flatten().flatten();
    // A page that changes must not change the boxes.
    let is_used = |path: &PathBuf| path.is_file() && path.extension() != Some("md".as_ref());
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_used).collect();
    files.sort();
    let mut list = String::from("&[\n");
    for file in &files {
        let name = file.file_name().unwrap_or_default();
        let _ = writeln!(list, "({name:?}, include_bytes!({file:?})),");
    }
    list.push_str("]\n");
    let out = std::env::var("OUT_DIR").expect("cargo sets it");
    std::fs::write(Path::new(&out).join("boot_files.rs"), list)
        .expect("cargo's folder is writable");
}
