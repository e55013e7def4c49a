//! What an error of ONNX Runtime means: it has one error code for nearly everything, so its words must tell. No model is known here.
//!
//! Its texts begin with a C++ signature of some 260 characters; here the reason comes first.

use gpu_tasks::Blame;

use crate::text::cut;

/// An error of ONNX Runtime: its reason, and what it is about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct OnnxError {
    reason: String,
    about: About,
}

/// What an error of ONNX Runtime is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// Memory that is not there now, on the card or the machine.
    Memory,
    /// The device: its driver, its libraries, or a process's state on it.
    Device,
    /// More memory than the machine has: no other moment gives it.
    TooMuchMemory,
    /// The run was told to stop.
    Stopped,
    /// Everything else: the graph, or the input.
    Graph,
}

/// Words of a memory that is full, in lower case: of ONNX Runtime's arenas, CUDA, cuBLAS, cuDNN and C++.
const MEMORY_WORDS: &[&str] = &[
    "out of memory",
    "out_of_memory",
    "failed to allocate",
    "smaller than requested bytes",
    "bad_alloc",
    "bad allocation",
    "status_alloc_failed",
    "allocation_failed",
    "memoryallocation",
    "bfcarena",
];
/// What comes before the code of a failed call: `CUDA failure 700: an illegal memory access was encountered`.
const CALL_WORDS: &[&str] = &[
    "cuda failure",
    "cuda error",
    "cudnn failure",
    "cublas failure",
    "cufft failure",
    "curand failure",
];
/// Failures of a call that are about what it was asked for: values, sizes or types that the library does not take.
const REQUEST_WORDS: &[&str] = &[
    "invalid argument",
    "invalid configuration",
    "too many resources",
    "operation not supported",
    "status_bad_param",
    "status_invalid_value",
    "status_not_supported",
];
/// Words of a device or its libraries that cannot be used at all.
const DEVICE_WORDS: &[&str] = &[
    "libonnxruntime_providers",
    "cannot open shared object",
    "cuda driver",
    "cuda-capable device",
    "nvrtc",
];
const STOPPED_WORDS: &str = "terminate flag";
/// What comes before the bytes that an arena was asked for.
const SIZE_WORDS: &str = "requested buffer of size ";

impl OnnxError {
    pub(crate) fn about(&self) -> About {
        self.about
    }

    /// Whose fault it is, if it came from a run of one input.
    pub(crate) fn blame(&self) -> Blame {
        match self.about {
            About::Memory | About::Device | About::Stopped => Blame::Box,
            About::TooMuchMemory | About::Graph => Blame::Input,
        }
    }

    /// What to do about it, if it came from a run.
    pub(crate) fn hint(&self) -> &'static str {
        match self.about {
            About::Memory => "free the device's memory, or stop what else uses it",
            About::Device => "look at nvidia-smi and dmesg on the box, and restart it",
            About::TooMuchMemory => "submit a smaller input, or use a box with more memory",
            About::Stopped | About::Graph => "check the input against what the model was made for",
        }
    }

    /// An error of a provider that could not be registered: whatever it says, it is about the device.
    pub(crate) fn of_provider<R>(error: &ort::Error<R>) -> Self {
        let error = Self::of_text(error.message());
        let about = if error.about == About::Memory { About::Memory } else { About::Device };
        Self { about, ..error }
    }

    /// An error of which only the text is known.
    pub(crate) fn of_text(text: &str) -> Self {
        Self { reason: cut(reason(text).to_owned()), about: About::of(text, memory_bytes()) }
    }
}

impl<R> From<ort::Error<R>> for OnnxError {
    fn from(error: ort::Error<R>) -> Self {
        Self::of_text(error.message())
    }
}

impl About {
    fn of(text: &str, memory_bytes: Option<u64>) -> Self {
        let text = text.to_lowercase();
        let any = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if text.contains(STOPPED_WORDS) {
            Self::Stopped
        } else if memory_bytes.is_some_and(|there| asked_bytes(&text) > there) {
            Self::TooMuchMemory
        } else if any(MEMORY_WORDS) {
            Self::Memory
        } else if any(DEVICE_WORDS) || (any(CALL_WORDS) && !any(REQUEST_WORDS)) {
            Self::Device
        } else {
            Self::Graph
        }
    }

    /// A short name for results and metrics, where the device is at fault; it never changes.
    pub(crate) fn code(self) -> Option<&'static str> {
        match self {
            Self::Memory => Some("device.memory"),
            Self::Device => Some("device.failed"),
            Self::TooMuchMemory | Self::Stopped | Self::Graph => None,
        }
    }
}

/// The bytes that an arena could not give; 0 if the text is about something else.
fn asked_bytes(text: &str) -> u64 {
    let Some((_, after)) = text.split_once(SIZE_WORDS) else { return 0 };
    let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    // More digits than fit are more bytes than there are.
    if digits == 0 { 0 } else { after[..digits].parse().unwrap_or(u64::MAX) }
}

/// The machine's memory; `None` where the kernel does not say. A card with more is rare, and then an error is taken for a passing one.
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1 << 10)
}

/// The text from its reason on: without the source file, its line, and the C++ function.
fn reason(text: &str) -> &str {
    const STATUS: &str = "Status Message: ";
    let text = text.rfind(STATUS).map_or(text, |at| &text[at + STATUS.len()..]);
    let reason = after_location(text).and_then(after_signature).map(str::trim);
    reason.filter(|reason| !reason.is_empty()).unwrap_or(text)
}

/// What follows `path/file.cc:123 ` at the start of a text.
fn after_location(text: &str) -> Option<&str> {
    let (location, after) = text.trim_start().split_once(' ')?;
    let (file, line) = location.rsplit_once(':')?;
    let is_source =
        [".cc", ".cpp", ".h", ".cu", ".cuh", ".hpp"].iter().any(|end| file.ends_with(end));
    (is_source && line.bytes().all(|byte| byte.is_ascii_digit())).then_some(after)
}

/// What follows `type name(types) const [with T = …] `.
fn after_signature(text: &str) -> Option<&str> {
    let mut rest = text;
    loop {
        let open = rest.find('(')?;
        rest = after_bracket(&rest[open..], ['(', ')'])?;
        // A lambda's types are within a longer name.
        if rest.starts_with([' ', ':']) || rest.is_empty() {
            break;
        }
    }
    let rest = rest.strip_prefix(" const").unwrap_or(rest).trim_start();
    let of_template = rest.starts_with("[with ").then(|| after_bracket(rest, ['[', ']'])).flatten();
    Some(of_template.unwrap_or(rest).trim_start_matches([' ', ':']))
}

/// What follows the bracket that `text` begins with.
fn after_bracket(text: &str, [open, close]: [char; 2]) -> Option<&str> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(&text[at + close.len_utf8()..]);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const ARENA: &str = "Non-zero status code returned while running Conv node. Name:'Conv_1' Status Message: \
        /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(\
        size_t, bool, onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 4294967296";
    const CUDA: &str = "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:129 std::conditional_t<THRW, void, \
        onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, ERRTYPE, const char*, const \
        char*, int) [with ERRTYPE = cudaError; bool THRW = true; std::conditional_t<THRW, void, \
        onnxruntime::common::Status> = void] CUDA failure ";

    #[test]
    fn the_reason_comes_first_without_the_signature() {
        let expected = "Failed to allocate memory for requested buffer of size 4294967296";
        assert_eq!(OnnxError::of_text(ARENA).to_string(), expected);
        let text = format!("{CUDA}2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size); ");
        let expected = "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);";
        assert_eq!(OnnxError::of_text(&text).to_string(), expected);
        let lambda = "/a/b.cc:12 onnxruntime::F::<lambda(int)>::operator()(int) const: it broke";
        assert_eq!(OnnxError::of_text(lambda).to_string(), "it broke");
        for plain in ["Load model failed: Protobuf parsing failed.", "a.cc:7 f(", "(", ""] {
            assert_eq!(OnnxError::of_text(plain).to_string(), plain);
        }
        assert_eq!(OnnxError::of_text(&"x".repeat(9_999)).to_string().len(), 1_024);
    }

    #[test]
    fn memory_and_devices_are_told_apart_from_graphs_and_inputs() {
        let cuda = |rest: &str| format!("{CUDA}{rest}");
        let cases = [
            (ARENA.to_owned(), About::Memory),
            (cuda("2: out of memory ; GPU=0"), About::Memory),
            ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0".to_owned(), About::Memory),
            ("CUDNN failure 5003: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED".to_owned(), About::Memory),
            ("Exception during initialization: std::bad_alloc".to_owned(), About::Memory),
            (cuda("700: an illegal memory access was encountered"), About::Device),
            (cuda("100: no CUDA-capable device is detected"), About::Device),
            (cuda("999: unknown error"), About::Device),
            ("CUBLAS failure 1: CUBLAS_STATUS_NOT_INITIALIZED ; GPU=0".to_owned(), About::Device),
            ("Failed to load library libonnxruntime_providers_cuda.so with error: libcudnn.so.9: x".to_owned(), About::Device),
            (cuda("9: invalid configuration argument ; GPU=0"), About::Graph),
            ("CUDNN failure 3000: CUDNN_STATUS_NOT_SUPPORTED".to_owned(), About::Graph),
            ("Got invalid dimensions for input: x".to_owned(), About::Graph),
            ("Exiting due to terminate flag being set to true.".to_owned(), About::Stopped),
        ];
        for (text, about) in cases {
            assert_eq!(About::of(&text, Some(16 * GIB)), about, "{text}");
        }
    }

    #[test]
    fn more_memory_than_the_machine_has_is_no_passing_state() {
        assert_eq!(About::of(ARENA, Some(2 * GIB)), About::TooMuchMemory);
        assert_eq!(About::of(ARENA, None), About::Memory);
        let digits = ARENA.replace("4294967296", &"9".repeat(30));
        assert_eq!(About::of(&digits, Some(2 * GIB)), About::TooMuchMemory);
        assert!(memory_bytes().is_none_or(|bytes| bytes > GIB / 4));
    }
}
