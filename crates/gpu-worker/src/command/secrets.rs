//! Secrets of a command: read from files that only their owner may read, for the program's environment and nothing else.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use gpuctl_core::policy::Command;
use gpuctl_worker::BoxFault;

/// The longest secret.
const SECRET_BYTES_MAX: u64 = 64 << 10;
/// The shortest line of a secret of several lines that is blotted out by itself: a brace gives nothing away.
const LINE_CHARS_MIN: usize = 8;
/// Permissions of users other than the owner.
const MODE_OF_OTHERS: u32 = 0o077;

/// The secrets of a command by the names of their variables.
pub(super) fn read(command: &Command) -> Result<BTreeMap<String, String>, BoxFault> {
    let secret = |(name, path): (&String, &String)| match read_one(Path::new(path)) {
        Ok(value) => Ok((name.clone(), value)),
        Err(why) => Err(BoxFault {
            code: "command.secret".to_owned(),
            message: format!("the secret {name} cannot be used: {path} {why}"),
            hint: Some(format!("write it into {path} on this box, with mode 0600")),
        }),
    };
    command.secrets.iter().map(secret).collect()
}

fn read_one(path: &Path) -> Result<String, String> {
    let unread = |error: std::io::Error| format!("cannot be read: {error}");
    let mut file = File::open(path).map_err(unread)?;
    let facts = file.metadata().map_err(unread)?;
    let mode = facts.mode() & 0o777;
    if !facts.is_file() {
        return Err("is not a file".to_owned());
    }
    if mode & MODE_OF_OTHERS != 0 {
        return Err(format!("may be read or written by others (mode {mode:04o})"));
    }
    if facts.len() > SECRET_BYTES_MAX {
        return Err(format!("is longer than {SECRET_BYTES_MAX} bytes"));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unread)?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.trim().is_empty() || text.contains('\0') {
        return Err("has no text that could be a variable".to_owned());
    }
    Ok(text.to_owned())
}

/// The texts that must not appear in a log, also as JSON writes them: each secret, and the longer lines of one that has several.
pub(super) fn blotted(secrets: &BTreeMap<String, String>) -> Vec<String> {
    let is_long = |line: &&str| line.chars().count() >= LINE_CHARS_MIN;
    let mut texts = Vec::new();
    for secret in secrets.values().map(|secret| secret.trim()) {
        for text in secret.lines().map(str::trim).filter(is_long).chain([secret]) {
            let json = serde_json::Value::from(text).to_string();
            texts.extend([json[1..json.len() - 1].to_owned(), text.to_owned()]);
        }
    }
    // The longest first: one may be a part of another.
    texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
    texts.dedup();
    texts
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_a_file_of_mode_0600() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(read_one(&path).unwrap_err().starts_with("cannot be read"));
        std::fs::write(&path, "hunter2\n").unwrap();
        for (mode, wanted) in [(0o600, Ok("hunter2".to_owned())), (0o400, Ok("hunter2".to_owned()))]
        {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_one(&path), wanted);
        }
        for mode in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(
                read_one(&path).unwrap_err(),
                format!("may be read or written by others (mode {mode:04o})")
            );
        }
        std::fs::write(&path, "\n").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(read_one(&path).is_err() && read_one(folder.path()).is_err());
    }

    #[test]
    fn a_secret_and_its_longer_lines_are_blotted_out_also_as_json_writes_them() {
        let of = |text: &str| blotted(&BTreeMap::from([("A".to_owned(), text.to_owned())]));
        assert_eq!(of("abc"), ["abc"], "a secret of one line however short it is");
        let account = "{\n  \"key\": \"hunter2\"\n}";
        let whole = [account.replace('"', "\\\"").replace('\n', "\\n"), account.to_owned()];
        let line = ["\\\"key\\\": \\\"hunter2\\\"", "\"key\": \"hunter2\""];
        assert_eq!(of(account), [&whole[0], &whole[1], line[0], line[1]], "no brace by itself");
    }
}
