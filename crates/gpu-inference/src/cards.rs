//! GPUs as NVIDIA's driver shows them, through NVML: the library that `nvidia-smi` is made of, and a part of the driver.
//!
//! It exists because CUDA shows neither how much of a card others use, nor why there is none. Nothing is decided here, and no memory is taken
//! on the card. Where NVML is missing, `nvidia-smi` does not work either: there is no second way.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;

use crate::text;

/// The environment variable by which CUDA sees some cards only.
pub const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
/// How long the driver may take to answer: it hangs where the card does.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);

/// A GPU of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// From 0, as the driver counts.
    pub index: u32,
    /// E.g. `GPU-4f1c…`; the same after every boot.
    pub uuid: String,
    /// E.g. `Tesla T4`.
    pub name: String,
    pub memory: CardMemory,
}

/// The memory of a card, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CardMemory {
    pub total: u64,
    /// What nothing can be put into: all processes', and what the driver keeps.
    pub used: u64,
    /// What this process uses of it. `None` where the driver does not list it: it has nothing on the card, or runs in a container with
    /// process ids of its own.
    pub ours: Option<u64>,
}

/// Why the machine's cards, or one of them, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CardError {
    /// There is no driver, or a container was started without it.
    #[error("NVIDIA's driver is not here: its library NVML cannot be loaded ({})", text::cut(reason.clone()))]
    NoDriver { reason: String },
    /// The library is there, and the driver does not answer it.
    #[error("NVIDIA's driver does not work: {}", text::cut(reason.clone()))]
    Driver {
        reason: String,
        /// Whether the library is of another version than the kernel's part.
        is_mismatch: bool,
    },
    /// The driver hangs.
    #[error("NVIDIA's driver did not answer within {} s", ANSWER_TIME_MAX.as_secs())]
    Silent,
    /// A card that is asked for is not there.
    #[error("there is no GPU {number}: this process sees {seen}")]
    NoSuchCard {
        number: u32,
        /// What there is, e.g. `1: 0 (Tesla T4)`.
        seen: String,
    },
}

impl CardError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoDriver { .. } => {
                "install NVIDIA's driver, or start the container with `--gpus all`; without a GPU set `device = \"cpu\"`"
            }
            Self::Driver { is_mismatch: true, .. } => {
                "the driver was updated: restart the box, or load its kernel module again"
            }
            Self::Driver { .. } | Self::Silent => {
                "look at nvidia-smi and dmesg on the box, and restart it"
            }
            Self::NoSuchCard { .. } => {
                "GPUs are counted from 0, among those that CUDA_VISIBLE_DEVICES shows"
            }
        }
    }
}

/// The machine's cards, in the driver's order.
///
/// # Errors
/// There is no driver, or it does not work.
pub fn cards() -> Result<Vec<Card>, CardError> {
    in_time(|| with_driver(read_cards))
}

/// The card that CUDA calls `number` in a process with this `CUDA_VISIBLE_DEVICES`. CUDA counts cards of several kinds otherwise than the
/// driver, unless `CUDA_DEVICE_ORDER` is `PCI_BUS_ID`; a name in the variable is certain.
///
/// # Errors
/// As [`cards`], and where there is no such card.
pub fn card(number: u32, visible: Option<&str>) -> Result<Card, CardError> {
    chosen(cards()?, number, visible)
}

/// CUDA uses the names of the variable up to the first that names none.
#[must_use]
pub fn names_in(visible: &str) -> Vec<String> {
    let names = visible.split(',').map(str::trim);
    names.take_while(|name| !name.is_empty() && *name != "-1").map(str::to_owned).collect()
}

fn chosen(cards: Vec<Card>, number: u32, visible: Option<&str>) -> Result<Card, CardError> {
    let seen: Vec<Card> = match visible {
        None => cards,
        Some(names) => {
            let names = names_in(names);
            names.iter().map_while(|name| named(&cards, name).cloned()).collect()
        }
    };
    let at = usize::try_from(number).unwrap_or(usize::MAX);
    let missing = || CardError::NoSuchCard { number, seen: listed(&seen) };
    seen.get(at).cloned().ok_or_else(missing)
}

/// The card that a word of the variable means: its number, or the beginning of its UUID.
fn named<'a>(cards: &'a [Card], name: &str) -> Option<&'a Card> {
    match name.parse::<u32>() {
        Ok(index) => cards.iter().find(|card| card.index == index),
        Err(_) => {
            let mut fitting = cards.iter().filter(|card| card.uuid.starts_with(name));
            fitting.next().filter(|_| fitting.next().is_none())
        }
    }
}

fn listed(seen: &[Card]) -> String {
    let list: Vec<String> =
        seen.iter().enumerate().map(|(number, card)| format!("{number} ({})", card.name)).collect();
    if list.is_empty() { "none".to_owned() } else { format!("{}: {}", list.len(), list.join(", ")) }
}

/// Where the driver is asked: once it has answered, its library stays loaded.
static DRIVER: Mutex<Option<Nvml>> = Mutex::new(None);

/// A driver that does not answer is asked anew the next time: it may load late.
fn with_driver<T>(read: impl FnOnce(&Nvml) -> Result<T, NvmlError>) -> Result<T, CardError> {
    // After a panic the library still stands.
    let mut driver = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    let nvml = match driver.take() {
        Some(nvml) => nvml,
        None => load(None)?,
    };
    read(driver.insert(nvml)).map_err(classify)
}

/// Loads NVML; `None`: where the driver has put it.
fn load(library: Option<&Path>) -> Result<Nvml, CardError> {
    match library {
        Some(path) => Nvml::builder().lib_path(OsStr::new(path)).init(),
        None => Nvml::init(),
    }
    .map_err(classify)
}

fn classify(error: NvmlError) -> CardError {
    match error {
        NvmlError::LibloadingError(error) => CardError::NoDriver { reason: error.to_string() },
        error => CardError::Driver {
            is_mismatch: matches!(error, NvmlError::LibRmVersionMismatch),
            reason: error.to_string(),
        },
    }
}

fn read_cards(nvml: &Nvml) -> Result<Vec<Card>, NvmlError> {
    (0..nvml.device_count()?).map(|index| read_card(nvml, index)).collect()
}

fn read_card(nvml: &Nvml, index: u32) -> Result<Card, NvmlError> {
    let device = nvml.device_by_index(index)?;
    let memory = device.memory_info()?;
    let own = std::process::id();
    // Some drivers do not list processes: the card is shown without.
    let processes = device.running_compute_processes().unwrap_or_default();
    let ours = processes.iter().find(|process| process.pid == own);
    let ours = ours.and_then(|process| match process.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    });
    let used = memory.total.saturating_sub(memory.free);
    let memory = CardMemory { total: memory.total, used, ours };
    Ok(Card { index, uuid: device.uuid()?, name: device.name()?, memory })
}

/// The answer of `ask`. Where the driver hangs, so does the thread that asks it, and for ever.
fn in_time<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, CardError> + Send + 'static,
) -> Result<T, CardError> {
    let (reply, answer) = mpsc::channel();
    std::thread::spawn(move || reply.send(ask()));
    answer.recv_timeout(ANSWER_TIME_MAX).unwrap_or(Err(CardError::Silent))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    /// NVML as `tests/nvml/stand_in.c` plays it, with these macros.
    fn stand_in(folder: &Path, macros: &[&str]) -> PathBuf {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nvml/stand_in.c");
        let library = folder.join("libnvidia-ml.so.1");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source);
        compiler.args(macros.iter().map(|name| format!("-D{name}")));
        assert!(compiler.status().unwrap().success());
        library
    }

    fn seen_by(macros: &[&str]) -> Result<Vec<Card>, CardError> {
        let folder = tempfile::tempdir().unwrap();
        let nvml = load(Some(&stand_in(folder.path(), macros)))?;
        read_cards(&nvml).map_err(classify)
    }

    const GIB: u64 = 1 << 30;

    #[test]
    fn each_card_is_shown_with_what_it_has_and_what_this_process_uses() {
        let cards = seen_by(&["CARDS=2"]).unwrap();
        let memory = CardMemory { total: 8 * GIB, used: 5 * GIB, ours: Some(GIB) };
        let expected = Card { index: 1, uuid: "GPU-b".into(), name: "Stand-in B".into(), memory };
        assert_eq!(cards[1], expected);
        assert_eq!((cards.len(), cards[0].uuid.as_str()), (2, "GPU-a"));
        // In a container the driver lists the process under another id.
        let elsewhere = seen_by(&["CARDS=1", "ELSEWHERE"]).unwrap();
        assert_eq!(elsewhere[0].memory, CardMemory { ours: None, ..memory });
        // A driver that lists no processes at all.
        let without = seen_by(&["CARDS=1", "NO_PROCESSES"]).unwrap();
        assert_eq!(without[0].memory, CardMemory { ours: None, ..memory });
    }

    #[test]
    fn a_driver_that_is_not_there_or_does_not_work_is_told_with_a_remedy() {
        let error = load(Some(Path::new("/nowhere/libnvidia-ml.so.1"))).err().unwrap();
        assert!(error.to_string().starts_with("NVIDIA's driver is not here: "), "{error}");
        assert!(error.hint().contains("set `device = \"cpu\"`"));
        let error = seen_by(&["CARDS=1", "INIT=18"]).unwrap_err();
        assert!(matches!(error, CardError::Driver { is_mismatch: true, .. }), "{error:?}");
        assert!(error.hint().contains("restart the box"));
        let error = seen_by(&["CARDS=1", "INIT=9"]).unwrap_err();
        assert!(matches!(error, CardError::Driver { is_mismatch: false, .. }), "{error:?}");
        assert!(error.to_string().starts_with("NVIDIA's driver does not work: "), "{error}");
    }

    #[test]
    fn a_card_is_meant_by_its_number_among_those_that_the_variable_shows() {
        let memory = CardMemory { total: 8, used: 0, ours: None };
        let card = |index, uuid: &str| Card { index, uuid: uuid.into(), name: "T4".into(), memory };
        let cards = vec![card(0, "GPU-ab"), card(1, "GPU-ac"), card(2, "GPU-b")];
        let means = |number, visible| chosen(cards.clone(), number, visible).map(|card| card.index);
        for (number, visible, index) in [
            (2, None, 2),
            (0, Some("1"), 1),
            (1, Some("GPU-b,GPU-ac"), 1),
            (1, Some("2, 0,-1,1"), 0),
        ] {
            assert_eq!(means(number, visible).unwrap(), index, "{number} of {visible:?}");
        }
        for (number, visible, seen) in [
            (3, None, "3: 0 (T4), 1 (T4), 2 (T4)"),
            (1, Some("2,-1,0"), "1: 0 (T4)"),
            // Two cards begin like this: CUDA uses neither.
            (0, Some("GPU-a"), "none"),
            (0, Some(""), "none"),
            (0, Some("7,0"), "none"),
        ] {
            let error = means(number, visible).unwrap_err();
            let expected = format!("there is no GPU {number}: this process sees {seen}");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn the_variable_counts_up_to_the_first_name_that_names_none() {
        assert_eq!(names_in("GPU-4f, 3"), ["GPU-4f", "3"]);
        assert_eq!(names_in("2,-1,3"), ["2"]);
        assert!(names_in("").is_empty());
    }
}
