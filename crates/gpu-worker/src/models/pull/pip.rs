//! Which index of Python packages this machine uses: pip's variable and its configuration files, in pip's order.
//!
//! gpu-worker has no index of its own: which one a machine may use is decided where pip is set up. Nothing is fetched
//! here. Source: pip's documentation, "Configuration", "Precedence / Override order".

use std::env;
use std::fs;
use std::path::PathBuf;

/// Where pip of a system looks when `XDG_CONFIG_DIRS` is not set.
const CONFIG_FOLDERS: &str = "/etc/xdg";
/// The sections that count for a download, the stronger one first.
const SECTIONS: [&str; 2] = ["download", "global"];

/// The address of the index, without a slash at its end; `None` if neither a variable nor a file names one.
pub(super) fn index_url() -> Option<String> {
    let in_files = || {
        let files = config_files(&setting);
        files.iter().find_map(|path| index_in(&fs::read_to_string(path).ok()?))
    };
    setting("PIP_INDEX_URL").or_else(in_files).map(|url| url.trim_end_matches('/').to_owned())
}

/// A variable that is set to something.
pub(super) fn setting(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Pip's configuration files, the strongest first. They need not exist.
fn config_files(setting: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let named = setting("PIP_CONFIG_FILE").map(PathBuf::from);
    // `PIP_CONFIG_FILE=/dev/null` switches every file off.
    if named.as_ref().is_some_and(|path| path.as_os_str() == "/dev/null") {
        return Vec::new();
    }
    let home = setting("HOME").map(PathBuf::from);
    let config =
        setting("XDG_CONFIG_HOME").map(PathBuf::from).or(home.as_ref().map(|h| h.join(".config")));
    let of_user = [config.map(|c| c.join("pip/pip.conf")), home.map(|h| h.join(".pip/pip.conf"))];
    let of_environment =
        setting("VIRTUAL_ENV").map(|folder| PathBuf::from(folder).join("pip.conf"));
    let folders = setting("XDG_CONFIG_DIRS").unwrap_or_else(|| CONFIG_FOLDERS.to_owned());
    let of_system = folders.split(':').map(|folder| PathBuf::from(folder).join("pip/pip.conf"));
    // A file named by the variable stands in for the user's own.
    let own: Vec<PathBuf> = match named {
        Some(path) => [Some(path), of_environment].into_iter().flatten().collect(),
        None => [of_environment].into_iter().chain(of_user).flatten().collect(),
    };
    let of_all = of_system.chain([PathBuf::from("/etc/pip.conf")]);
    own.into_iter().chain(of_all).collect()
}

/// The `index-url` of a configuration file.
fn index_in(text: &str) -> Option<String> {
    SECTIONS.iter().find_map(|wanted| {
        let mut section = "";
        let mut found = None;
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name;
            } else if let Some((key, value)) = line.split_once(['=', ':'])
                && section == *wanted
                && key.trim().to_lowercase().replace('_', "-") == "index-url"
            {
                found = Some(value.trim().to_owned());
            }
        }
        found.filter(|url| !url.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(settings: &[(&str, &str)]) -> Vec<String> {
        let setting = |name: &str| {
            let found = settings.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        config_files(&setting).iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn files_come_in_the_order_in_which_pip_lets_them_win() {
        assert_eq!(
            files(&[("HOME", "/h"), ("VIRTUAL_ENV", "/v")]),
            [
                "/v/pip.conf",
                "/h/.config/pip/pip.conf",
                "/h/.pip/pip.conf",
                "/etc/xdg/pip/pip.conf",
                "/etc/pip.conf",
            ]
        );
        let named = [("HOME", "/h"), ("PIP_CONFIG_FILE", "/f"), ("XDG_CONFIG_DIRS", "/a:/b")];
        assert_eq!(files(&named), ["/f", "/a/pip/pip.conf", "/b/pip/pip.conf", "/etc/pip.conf"]);
        assert!(files(&[("HOME", "/h"), ("PIP_CONFIG_FILE", "/dev/null")]).is_empty());
    }

    #[test]
    fn the_index_is_that_of_the_download_section_then_of_the_global_one() {
        let global = "# pip\n[global]\ntimeout = 60\nindex-url = https://host:8443/simple\n";
        assert_eq!(index_in(global).as_deref(), Some("https://host:8443/simple"));
        let both = format!("{global}[download]\nindex_url: https://other/simple\n");
        assert_eq!(index_in(&both).as_deref(), Some("https://other/simple"));
        for none in ["", "[install]\nindex-url = https://x\n", "[global]\nindex-url =\n"] {
            assert_eq!(index_in(none), None, "{none:?}");
        }
    }
}
