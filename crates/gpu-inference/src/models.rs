//! The models on this machine: manifests, verified files, and sessions with checked inputs and outputs.
//!
//! What a family's code does with its sessions is in `pipelines`. Nothing is fetched here.

mod error;
mod family;
mod files;
mod graph;
mod io_spec;
mod manifest;
mod onnx_file;
mod opener;
mod origin;
mod runtime;
mod settings;
mod store;

pub use self::error::ModelError;
pub(crate) use self::family::{Families, FamilySpec, Need, Use};
pub(crate) use self::files::verified_bytes;
pub(crate) use self::graph::{Feed, Graph, Stack};
pub(crate) use self::io_spec::{DimSpec, IoName, IoSpec, Signature};
pub use self::manifest::{Manifest, ManifestError, ModelFile, ModelTask, Precision, catalogue};
pub(crate) use self::opener::{Opener, Place, SessionSource};
pub use self::origin::{Origin, WheelFile};
pub use self::runtime::{
    Device, DevicePreference, Gpu, Runtime, RuntimeError, RuntimeOptions, UnknownDevice,
    cache_folder,
};
pub(crate) use self::settings::{Settings, check_settings, no_settings};
pub(crate) use self::store::Work;
pub use self::store::{ModelStore, Resolved};
