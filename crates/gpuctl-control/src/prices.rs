//! The file of fetched prices in the state folder: read when a policy is, written whole or not at all.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gpuctl_core::cost::PriceTable;

use crate::log::shown;
use crate::state_folder;

/// The file's name.
pub const FILE_NAME: &str = "prices.csv";

/// The largest file, far above what every region's prices need.
const BYTES_MAX: u64 = 1 << 20;

/// The prices that were fetched into this folder, if any were.
///
/// A file that cannot be used is logged and left out: it must not keep a user from stopping a box.
#[must_use]
pub fn read(state: &Path) -> PriceTable {
    let path = state.join(FILE_NAME);
    match read_file(&path) {
        Ok(table) => table,
        Err(why) => {
            tracing::error!(
                "the fetched prices in {} are not used: {}; `gpuctl cost prices --refresh` fetches new ones",
                shown(path.display()),
                shown(why)
            );
            PriceTable::default()
        }
    }
}

fn read_file(path: &Path) -> Result<PriceTable, String> {
    match std::fs::metadata(path) {
        Ok(file) if file.len() > BYTES_MAX => return Err("the file is too large".to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(PriceTable::default()),
        Err(error) => return Err(error.to_string()),
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    PriceTable::parse(&text).map_err(|error| error.to_string())
}

/// Writes the fetched prices of this table in place of the file; returns its path.
///
/// # Errors
/// When the folder cannot be written to; the old file stays then.
pub fn write(state: &Path, table: &PriceTable) -> io::Result<PathBuf> {
    state_folder::make(state)?;
    let path = state.join(FILE_NAME);
    let mut file = tempfile::NamedTempFile::new_in(state)?;
    file.write_all(table.text().as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_and_what_cannot_be_read_is_left_out() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(read(state.path()), PriceTable::default());
        let table = PriceTable::parse("c7i.large,eu-west-1,0.1,,2026-11-22").unwrap();
        let path = write(state.path(), &table).unwrap();
        assert_eq!(read(state.path()), table);
        std::fs::write(path, "half a row,").unwrap();
        assert_eq!(read(state.path()), PriceTable::default());
    }
}
