//! ONNX Runtime as a library found at run time, and the choice of CPU or GPU.
//!
//! It exists because ONNX Runtime is loaded by path (so one binary serves machines with and without CUDA), can be
//! loaded once per process only, and says that CUDA works where it does not. No model is known here.

use std::env;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use gpu_tasks::Blame;
use ort::editor::{Graph, Model, Node, ONNX_DOMAIN, Opset};
use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{Outlet, Shape, SymbolicDimensions, Tensor, TensorElementType, ValueType};
use ort::{LoadDynamicError, ep};
use tracing::{info, warn};

use crate::cards::{CardError, VISIBLE, card};
use crate::onnx_error::{About, OnnxError};

/// Oldest ONNX Runtime that this build accepts: the `api-24` feature of `ort`.
const VERSION_MINOR_MIN: u32 = 24;
/// Size of the picture that the device probe convolves; large enough that cuDNN takes its usual path.
const PROBE_SIDE: usize = 32;

/// The process's ONNX Runtime. Cheap to clone; all clones share one environment.
#[derive(Debug, Clone)]
pub struct Runtime {
    loaded: &'static Loaded,
    options: RuntimeOptions,
}

/// How sessions use the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// Threads that one session uses inside an operator.
    pub intra_threads: NonZeroUsize,
    /// Whether the machine has a GPU that is there to be used.
    pub gpu: Gpu,
    /// Which GPU CUDA means, from 0.
    pub gpu_index: u32,
}

/// Whether a machine has a GPU that is there to be used: it decides what [`DevicePreference::Auto`] means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gpu {
    /// Nothing is known of one: `auto` takes CUDA if it works, else the processor.
    #[default]
    Unknown,
    /// It is paid for: `auto` means CUDA, or an error. Only a model whose own placement is `auto` may run on the processor.
    Expected,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        let intra_threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { intra_threads, gpu: Gpu::Unknown, gpu_index: 0 }
    }
}

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Device {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU: the first one, or that of [`RuntimeOptions::gpu_index`].
    Cuda,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        })
    }
}

/// Where models are to run: `auto`, `cpu` or `cuda`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DevicePreference {
    /// The GPU if it really works, else the processor; see [`Gpu`].
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The GPU, or an error that says why not.
    Cuda,
}

impl fmt::Display for DevicePreference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        })
    }
}

impl FromStr for DevicePreference {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, UnknownDevice> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            _ => Err(UnknownDevice { given: text.to_owned() }),
        }
    }
}

/// A device name that is not one of auto, cpu, cuda.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown device {given:?}: it is one of auto, cpu, cuda{}", why_not(given))]
pub struct UnknownDevice {
    pub given: String,
}

/// What is said of devices that others have and that are not used here.
fn why_not(given: &str) -> &'static str {
    match given.to_ascii_lowercase().as_str() {
        "mps" | "coreml" => "; Apple's GPUs are not used: take `cpu`",
        "rocm" | "hip" | "directml" | "xpu" => "; only GPUs of NVIDIA are used: take `cpu`",
        _ => "",
    }
}

/// Why ONNX Runtime, or the requested device, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// No library was named, and there is none in the cache.
    #[error("no ONNX Runtime found under {}", searched.display())]
    NotFound { searched: PathBuf },
    /// The named file does not exist.
    #[error("no ONNX Runtime at {}", path.display())]
    Missing { path: PathBuf },
    /// The file is not a shared library that this machine can load, or not ONNX Runtime.
    #[error("{} is not an ONNX Runtime library", path.display())]
    NotALibrary {
        path: PathBuf,
        #[source]
        source: LoadDynamicError,
    },
    /// The library is older than this build accepts.
    #[error("ONNX Runtime {found} at {} is too old, 1.{VERSION_MINOR_MIN} or newer is needed", path.display())]
    TooOld { path: PathBuf, found: String },
    /// Another library is loaded already; a process can have only one.
    #[error("this process already uses ONNX Runtime from {}, not {}", loaded.display(), asked.display())]
    AlreadyLoaded { loaded: PathBuf, asked: PathBuf },
    /// The library loaded, but would not start.
    #[error("ONNX Runtime at {} does not start", path.display())]
    Start {
        path: PathBuf,
        #[source]
        source: OnnxError,
    },
    /// CUDA is asked for, and does not work here now.
    #[error("CUDA does not work here")]
    Cuda {
        #[source]
        source: OnnxError,
    },
    /// CUDA is asked for, and there is no driver for it, or not the GPU that it is to use.
    #[error("CUDA does not work here")]
    NoGpu {
        #[source]
        source: CardError,
    },
}

impl RuntimeError {
    /// A short name for results and metrics; it never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::Missing { .. } => "runtime.missing",
            Self::NotALibrary { .. } => "runtime.no_library",
            Self::TooOld { .. } => "runtime.too_old",
            Self::AlreadyLoaded { .. } => "runtime.loaded",
            Self::Start { .. } => "runtime.start",
            Self::Cuda { .. } | Self::NoGpu { .. } => "runtime.cuda",
        }
    }

    /// Always the box: no input has anything to do with it.
    #[must_use]
    pub fn blame(&self) -> Blame {
        Blame::Box
    }

    /// The code of a device that is there and has no memory.
    pub(crate) fn device_code(&self) -> Option<&'static str> {
        match self {
            Self::Cuda { source } if source.about() == About::Memory => source.about().code(),
            _ => None,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::Missing { .. } => {
                "run scripts/fetch-models.py, or set ORT_DYLIB_PATH to a libonnxruntime.so"
            }
            Self::NotALibrary { .. } => {
                "ORT_DYLIB_PATH must name libonnxruntime.so itself, built for this machine"
            }
            Self::TooOld { .. } => "run scripts/fetch-models.py and unset ORT_DYLIB_PATH",
            Self::AlreadyLoaded { .. } => "start another process for another ONNX Runtime",
            Self::Start { .. } => "fetch the library again: scripts/fetch-models.py",
            Self::Cuda { source } if source.about() == About::Memory => source.hint(),
            Self::Cuda { .. } => {
                "use the libraries of onnxruntime-gpu, put the CUDA and cuDNN folders into \
                 LD_LIBRARY_PATH, check the driver with nvidia-smi, or set `device = \"cpu\"`"
            }
            Self::NoGpu { source } => source.hint(),
        }
    }
}

/// The library and its environment: both live as long as the process.
#[derive(Debug)]
struct Loaded {
    path: PathBuf,
    environment: Environment,
    /// What the last CUDA probe found. Only that it works is believed later: a driver may load late, a full card empty again.
    cuda: Mutex<Option<Result<(), OnnxError>>>,
}

static LOADED: OnceLock<Loaded> = OnceLock::new();
/// Held while loading, so that two threads cannot both build the one environment.
static LOADING: Mutex<()> = Mutex::new(());

impl Runtime {
    /// Loads the library at `library`. A second call with the same path gives the same runtime.
    ///
    /// # Errors
    /// The file is missing, is not a library, is too old, does not start, or another one is in use.
    pub fn load(library: &Path, options: RuntimeOptions) -> Result<Self, RuntimeError> {
        let path = library
            .canonicalize()
            .map_err(|_| RuntimeError::Missing { path: library.to_owned() })?;
        // After a panic while loading the state is still valid: LOADED is set last.
        let _guard = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = match LOADED.get() {
            Some(loaded) if loaded.path == path => loaded,
            Some(loaded) => {
                let loaded = loaded.path.clone();
                return Err(RuntimeError::AlreadyLoaded { loaded, asked: path });
            }
            None => {
                let environment = start(&path)?;
                LOADED.get_or_init(|| Loaded { path, environment, cuda: Mutex::default() })
            }
        };
        Ok(Self { loaded, options })
    }

    /// The library to load: `explicit`, else `ORT_DYLIB_PATH`, else the newest in the cache.
    ///
    /// # Errors
    /// No path is given and the cache holds no library. A given path is not checked here but by [`Runtime::load`].
    pub fn locate(explicit: Option<&Path>) -> Result<PathBuf, RuntimeError> {
        if let Some(path) = explicit {
            return Ok(path.to_owned());
        }
        if let Some(path) = env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
            return Ok(path.into());
        }
        let searched = cache_folder().join("onnxruntime");
        newest_library(&searched).ok_or(RuntimeError::NotFound { searched })
    }

    /// The device that `preference` means on this machine now. CUDA is really tried, each time until it has worked: how often to ask
    /// is the caller's decision.
    ///
    /// # Errors
    /// CUDA does not work, and is asked for by name or by [`Gpu::Expected`].
    pub fn device(&self, preference: DevicePreference) -> Result<Device, RuntimeError> {
        let needed = match preference {
            DevicePreference::Cpu => return Ok(Device::Cpu),
            DevicePreference::Cuda => true,
            DevicePreference::Auto => self.options.gpu == Gpu::Expected,
        };
        match self.cuda() {
            Ok(()) => Ok(Device::Cuda),
            Err(source) if needed => Err(self.why_no_cuda(source)),
            Err(_) => Ok(Device::Cpu),
        }
    }

    /// The driver is asked only here: where there is no NVML, CUDA may work all the same.
    fn why_no_cuda(&self, source: OnnxError) -> RuntimeError {
        let visible = env::var(VISIBLE).ok();
        match card(self.options.gpu_index, visible.as_deref()) {
            Ok(_) => RuntimeError::Cuda { source },
            Err(source) => RuntimeError::NoGpu { source },
        }
    }

    /// Whether the machine's GPU is there to be used.
    pub(crate) fn gpu(&self) -> Gpu {
        self.options.gpu
    }

    /// Whether CUDA works now.
    pub(crate) fn cuda(&self) -> Result<(), OnnxError> {
        let mut last = self.last_probe();
        if matches!(*last, Some(Ok(()))) {
            return Ok(());
        }
        let probe = self.probe(Device::Cuda);
        // Each model asks: the same answer is logged once.
        if last.as_ref() != Some(&probe) {
            match &probe {
                Ok(()) => info!("CUDA works"),
                Err(reason) => warn!(%reason, "CUDA does not work here"),
            }
        }
        *last = Some(probe.clone());
        probe
    }

    /// Has CUDA tried again before it is used the next time: a session has just failed on it.
    pub(crate) fn doubt_cuda(&self) {
        *self.last_probe() = None;
    }

    pub(crate) fn last_probe(&self) -> MutexGuard<'_, Option<Result<(), OnnxError>>> {
        // After a panic while probing the last answer still stands.
        self.loaded.cuda.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session for the model in `bytes` (ONNX or ORT format), with the weights that lie in a file beside it.
    pub(crate) fn session(
        &self,
        bytes: &[u8],
        weights: Option<(PathBuf, Vec<u8>)>,
        device: Device,
    ) -> Result<Session, OnnxError> {
        let builder = self.session_builder(device)?;
        let mut builder = match weights {
            Some((name, content)) => {
                builder.with_external_initializer_file_in_memory(name, content.into())?
            }
            None => builder,
        };
        Ok(builder.commit_from_memory(bytes)?)
    }

    /// A session for a graph that is made here.
    pub(crate) fn own_session(&self, model: Model, device: Device) -> Result<Session, OnnxError> {
        Ok(model.into_session(&self.session_builder(device)?)?)
    }

    fn session_builder(&self, device: Device) -> Result<SessionBuilder, OnnxError> {
        let builder = Session::builder(&self.loaded.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(self.options.intra_threads.get())?
            // Spinning threads take the cores from decoding and upload: 84 ms against 130 ms on a busy 2-core box.
            .with_intra_op_spinning(false)?
            // Shapes differ from run to run, so a remembered layout is never used again.
            .with_memory_pattern(false)?;
        match device {
            Device::Cpu => Ok(builder),
            Device::Cuda => builder
                .with_execution_providers([cuda_provider(self.options.gpu_index)])
                .map_err(|error| OnnxError::of_provider(&error)),
        }
    }

    /// Makes a session on `device` and runs one convolution and one product. Asking is not enough: ONNX Runtime lists CUDA among
    /// its providers also where CUDA's libraries are missing, and it loads cuDNN and cuBLAS only when they are first needed.
    fn probe(&self, device: Device) -> Result<(), OnnxError> {
        let mut session = self.own_session(probe_graph()?, device)?;
        let picture = Tensor::from_array(([1, 1, PROBE_SIDE, PROBE_SIDE], probe_values()))?;
        session.run(ort::inputs!["picture" => picture])?;
        Ok(())
    }
}

/// Where models and ONNX Runtime are kept: `$GPUCTL_CACHE`, else `$XDG_CACHE_HOME/gpuctl`, else `~/.cache/gpuctl`.
#[must_use]
pub fn cache_folder() -> PathBuf {
    let folder = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("GPUCTL_CACHE")
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("gpuctl")))
        .or_else(|| Some(folder("HOME")?.join(".cache").join("gpuctl")))
        .unwrap_or_else(|| PathBuf::from(".gpuctl-cache"))
}

/// Loads the library and builds the process's environment from it.
fn start(path: &Path) -> Result<Environment, RuntimeError> {
    let builder = ort::init_from(path).map_err(|error| classify(path, error))?;
    let environment = builder
        .with_name("gpuctl")
        .with_telemetry(false)
        .build()
        .map_err(|error| RuntimeError::Start { path: path.to_owned(), source: error.into() })?;
    info!(path = %path.display(), build = ort::info(), "loaded ONNX Runtime");
    Ok(environment)
}

fn classify(path: &Path, error: LoadDynamicError) -> RuntimeError {
    let path = path.to_owned();
    match error {
        LoadDynamicError::BadVersion { version_str, .. } => {
            RuntimeError::TooOld { path, found: version_str }
        }
        source => RuntimeError::NotALibrary { path, source },
    }
}

/// The library of the highest version under `<folder>/<version>/libonnxruntime.so*`.
fn newest_library(folder: &Path) -> Option<PathBuf> {
    let versions = folder.read_dir().ok()?.flatten().map(|entry| entry.path());
    let libraries = versions.filter_map(|version| {
        let files = version.read_dir().ok()?.flatten().map(|entry| entry.path());
        let library = files.filter(|path| is_library(path)).min()?;
        Some((version_numbers(&version), library))
    });
    libraries.max().map(|(_, library)| library)
}

fn is_library(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("libonnxruntime.so") && path.is_file()
}

/// `1.9.0` sorts before `1.31.1` only as numbers.
fn version_numbers(folder: &Path) -> Vec<u32> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

fn cuda_provider(index: u32) -> ep::ExecutionProviderDispatch {
    ep::CUDA::default()
        .with_device_id(i32::try_from(index).unwrap_or(i32::MAX))
        // The default doubles the arena each time it is full, and so wastes up to half of a shared card.
        .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested)
        // The default re-tunes for each new shape: 10 s against 31 ms over 16 OCR shapes (PaddleX#5057).
        .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Heuristic)
        .build()
        // Without this a failed registration is a silent fall-back to the CPU.
        .error_on_failure()
}

/// The smallest model that needs cuDNN and cuBLAS.
fn probe_graph() -> ort::Result<Model> {
    let tensor = |name: &str| {
        let side = i64::try_from(PROBE_SIDE).expect("32 fits");
        let shape = Shape::new([1, 1, side, side]);
        let dimension_symbols = SymbolicDimensions::empty(4);
        let ty = TensorElementType::Float32;
        Outlet::new(name, ValueType::Tensor { ty, shape, dimension_symbols })
    };
    let mut graph = Graph::new()?;
    graph.set_inputs([tensor("picture")])?;
    graph.set_outputs([tensor("result")])?;
    let kernel = Tensor::from_array(([1, 1, 1, 1], vec![1.0_f32]))?;
    // The graph takes only memory that ONNX Runtime owns: a clone's is.
    graph.add_initializer("kernel", kernel.clone(), false)?;
    let mut add = |operator, inputs: [&str; 2], output: &str| {
        graph.add_node(Node::new(operator, ONNX_DOMAIN, operator, inputs, [output], [])?)
    };
    add("Conv", ["picture", "kernel"], "convolved")?;
    add("MatMul", ["convolved", "convolved"], "result")?;
    let mut model = Model::new([Opset::new(ONNX_DOMAIN, 17)?])?;
    model.set_graph(graph)?;
    Ok(model)
}

fn probe_values() -> Vec<f32> {
    vec![0.5; PROBE_SIDE * PROBE_SIDE]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A probe that fails for a reason of its own would keep every GPU idle.
    #[test]
    fn the_probe_works_on_a_device_that_does() {
        let library = Runtime::locate(None).expect("run scripts/fetch-models.py");
        let runtime = Runtime::load(&library, RuntimeOptions::default()).unwrap();
        runtime.probe(Device::Cpu).unwrap();
    }

    #[test]
    fn an_old_library_is_told_apart_from_a_broken_one() {
        let path = Path::new("/x/libonnxruntime.so");
        let old = LoadDynamicError::BadVersion { version_str: "1.23.2".into(), path: path.into() };
        assert!(
            matches!(classify(path, old), RuntimeError::TooOld { found, .. } if found == "1.23.2")
        );
        let broken = LoadDynamicError::MissingApi { path: path.into() };
        assert!(matches!(classify(path, broken), RuntimeError::NotALibrary { .. }));
    }

    #[test]
    fn the_newest_library_wins_by_number_and_not_by_letter() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["1.9.0", "1.31.1", "1.24.4"] {
            let path = folder.path().join(version);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join(format!("libonnxruntime.so.{version}")), b"").unwrap();
        }
        let newest = newest_library(folder.path()).unwrap();
        assert!(newest.ends_with("1.31.1/libonnxruntime.so.1.31.1"));
    }

    #[test]
    fn device_names_are_read_and_shown_alike() {
        for name in ["auto", "cpu", "cuda"] {
            assert_eq!(name.parse::<DevicePreference>().unwrap().to_string(), name);
        }
        let error = "gpu".parse::<DevicePreference>().unwrap_err();
        assert_eq!(error.to_string(), "unknown device \"gpu\": it is one of auto, cpu, cuda");
        let error = "mps".parse::<DevicePreference>().unwrap_err();
        assert!(error.to_string().ends_with("; Apple's GPUs are not used: take `cpu`"), "{error}");
    }
}
