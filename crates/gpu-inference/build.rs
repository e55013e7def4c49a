//! Puts the committed manifests into the program, so that a box without the source tree can pull the models they name.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder =
        Path::new(&env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?).join("models");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut manifests = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path().join("model.toml");
        if path.is_file() {
            manifests.push(path);
        }
    }
    manifests.sort();
    let mut list = "[\n".to_owned();
    for path in manifests {
        writeln!(list, "    include_str!({path:?}),").map_err(io::Error::other)?;
    }
    list.push_str("]\n");
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("manifests.rs"), list)
}
