//! The documents of `config`.

use serde::Serialize;

/// `gpuctl.config-path`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ConfigPathDocument {
    /// A path or URI, or that the built-in default is used.
    pub(crate) config: String,
    /// The folder of this machine's state.
    pub(crate) state: String,
    /// A `gpuctl.toml` further up that is not used.
    pub(crate) not_used: Option<String>,
}

/// `gpuctl.config-valid`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ConfigValidDocument {
    pub(crate) config: String,
    pub(crate) pools: Vec<String>,
}

/// `gpuctl.config`: every setting as it applies.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ConfigShowDocument {
    pub(crate) config: String,
    pub(crate) sections: Vec<SectionDocument>,
    /// Whether the text says where each setting comes from.
    #[serde(skip)]
    pub(crate) show_origin: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct SectionDocument {
    /// As in the file, e.g. `[pool.gpu]`.
    pub(crate) heading: String,
    pub(crate) settings: Vec<SettingDocument>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct SettingDocument {
    pub(crate) key: String,
    /// As it is written in the file; none where the default is only words.
    pub(crate) value: Option<String>,
    pub(crate) words: Option<&'static str>,
    /// `file`, `default`, or the name of an environment variable.
    pub(crate) origin: String,
    /// Its line in the file.
    pub(crate) line: Option<usize>,
}
