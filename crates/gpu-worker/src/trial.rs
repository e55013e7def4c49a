//! `gpu-worker check`: runs each model that is here once, on a small generated input, and says how long that took. Nothing is downloaded or
//! changed. What a model makes of noise is not looked at: that it runs, on the device that it is placed on, is what is tried.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gpu_inference::{
    Bench, Cancel, Manifest, ModelStore, ModelTask, OpenSides, Params, Runtime, Task, decode,
    open_pipeline,
};
use gpuctl_control::log::shown;
use serde_json::{Map, Value};

use crate::engine::EngineSetup;
use crate::failure::with_causes;

/// Long enough for a voice to be recognised.
const SOUND_SECONDS: u32 = 2;
const SOUND_HERTZ: u32 = 16_000;
const TONE_HERTZ: u32 = 180;
/// Sides of the picture, in pixels.
const PICTURE_SIDE: u32 = 128;

/// What came of one model.
#[derive(Debug)]
pub struct Trial {
    model: String,
    task: String,
    outcome: Result<Ran, String>,
}

#[derive(Debug)]
struct Ran {
    /// Where it ran, and a remark.
    device: String,
    open: Duration,
    run: Duration,
}

/// All trials, as a table.
#[derive(Debug)]
pub struct Trials(Vec<Trial>);

impl Trials {
    /// Runs each model once, one after the other.
    ///
    /// # Errors
    /// ONNX Runtime, the device or the folder of models cannot be used, or there is no model.
    pub fn run(setup: &EngineSetup) -> Result<Self, Box<dyn Error>> {
        let library = Runtime::locate(setup.library.as_deref())?;
        let runtime = Runtime::load(&library, setup.options)?;
        // Also where each model is placed on the processor by its manifest: the jobs of a box without its device wait.
        runtime.device(setup.device)?;
        let store = setup.store()?;
        let samples = Samples::write()?;
        let trier = Trier { setup, runtime, store: &store, samples };
        let trials: Vec<Trial> = store.list().map(|manifest| trier.try_model(manifest)).collect();
        if trials.is_empty() {
            return Err(format!("there is no model in {}", setup.models.display()).into());
        }
        Ok(Self(trials))
    }

    /// Whether each model ran.
    #[must_use]
    pub fn all_ran(&self) -> bool {
        self.0.iter().all(|trial| trial.outcome.is_ok())
    }
}

impl fmt::Display for Trials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<24} {:<17} {:<7} {:>8} {:>8}", "MODEL", "TASK", "DEVICE", "OPEN", "RUN")?;
        for Trial { model, task, outcome } in &self.0 {
            write!(f, "{model:<24} {task:<17} ")?;
            match outcome {
                Ok(Ran { device, open, run }) => {
                    let (open, run) = (open.as_secs_f64(), run.as_secs_f64());
                    writeln!(f, "{device:<7} {open:>6.2} s {run:>6.2} s")?;
                }
                Err(why) => writeln!(f, "FAILED  {why}")?,
            }
        }
        Ok(())
    }
}

struct Trier<'a> {
    setup: &'a EngineSetup,
    runtime: Runtime,
    store: &'a ModelStore,
    samples: Samples,
}

impl Trier<'_> {
    fn try_model(&self, manifest: &Manifest) -> Trial {
        let outcome = match manifest.task() {
            // Its input is whatever its graph takes.
            ModelTask::Job(Task::OnnxRun) => self.run_graphs(manifest),
            ModelTask::Job(task) => self.run_job(manifest, task),
            ModelTask::VoiceActivity | ModelTask::VoiceSpeaker => self.run_graphs(manifest),
        };
        let outcome = outcome.map_err(|error| shown(with_causes(&*error)).to_string());
        Trial { model: manifest.name().to_owned(), task: manifest.task().to_string(), outcome }
    }

    /// As a job does, from the file to the output.
    fn run_job(&self, manifest: &Manifest, task: Task) -> Result<Ran, Box<dyn Error>> {
        let began = Instant::now();
        let mut pipeline =
            open_pipeline(&self.runtime, self.store, manifest.name(), self.setup.device)?;
        let open = began.elapsed();
        let (file, params) = self.samples.of(task)?;
        let prepared = decode(task, file, &params, &self.setup.limits)?;
        let began = Instant::now();
        pipeline.run(&[prepared], &Cancel::new())?;
        Ok(Ran { device: pipeline.device().to_string(), open, run: began.elapsed() })
    }

    /// Each graph by itself, with numbers of the right shape; one that takes no such input is opened only.
    fn run_graphs(&self, manifest: &Manifest) -> Result<Ran, Box<dyn Error>> {
        let device = manifest.device().unwrap_or(self.setup.device);
        let mut ran = Ran { device: device.to_string(), open: Duration::ZERO, run: Duration::ZERO };
        let roles: Vec<&str> = manifest.graphs().map(|file| file.role.as_str()).collect();
        for role in &roles {
            let graph = match roles.as_slice() {
                [_] => manifest.name().to_owned(),
                _ => format!("{}/{role}", manifest.name()),
            };
            let mut bench = Bench::open(&self.runtime, self.store, &graph, device)?;
            ran.open += bench.load;
            if bench.takes(1) {
                ran.run += bench.measure(1, OpenSides::default(), Duration::ZERO)?.call_p50;
            }
        }
        Ok(ran)
    }
}

/// Small inputs of each kind, in a folder that goes with them.
struct Samples {
    _folder: tempfile::TempDir,
    sound: PathBuf,
    picture: PathBuf,
    text: PathBuf,
}

impl Samples {
    fn write() -> std::io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (sound, picture) = (folder.path().join("sound.wav"), folder.path().join("picture.bmp"));
        let text = folder.path().join("text.txt");
        std::fs::write(&sound, wav())?;
        std::fs::write(&picture, bmp())?;
        std::fs::write(&text, "Each model is run once.\n")?;
        Ok(Self { _folder: folder, sound, picture, text })
    }

    fn of(&self, task: Task) -> Result<(&Path, Params), Box<dyn Error>> {
        let mut given = Map::new();
        let file = match task {
            Task::VoiceTranscribe | Task::VoiceDenoise => &self.sound,
            Task::VoiceConvert => {
                let uri = format!("file://{}", self.sound.display());
                given.insert("reference".to_owned(), Value::String(uri));
                &self.sound
            }
            Task::VisionOcr | Task::VisionEmbed | Task::VisionSegment | Task::VisionDetect => {
                &self.picture
            }
            Task::VoiceSynthesize | Task::TextEmbed | Task::TextClassify | Task::OnnxRun => {
                &self.text
            }
        };
        let mut params = Params::read(task, &given)?;
        if !given.is_empty() {
            params.set_file("reference", self.sound.clone());
        }
        Ok((file, params))
    }
}

/// A tone, as 16-bit samples of a sawtooth.
fn wav() -> Vec<u8> {
    let bytes = SOUND_SECONDS * SOUND_HERTZ * 2;
    let mut wav = Vec::with_capacity(44 + bytes as usize);
    wav.extend(b"RIFF");
    wav.extend((36 + bytes).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    // PCM, one channel.
    wav.extend([1, 0, 1, 0]);
    wav.extend(SOUND_HERTZ.to_le_bytes());
    wav.extend((SOUND_HERTZ * 2).to_le_bytes());
    wav.extend([2, 0, 16, 0]);
    wav.extend(b"data");
    wav.extend(bytes.to_le_bytes());
    for at in 0..SOUND_SECONDS * SOUND_HERTZ {
        let height = i16::try_from(at * TONE_HERTZ % SOUND_HERTZ).expect("below the rate");
        wav.extend((height - 8_000).to_le_bytes());
    }
    wav
}

/// Dark bars on white, as 24-bit pixels.
fn bmp() -> Vec<u8> {
    let bytes = PICTURE_SIDE * PICTURE_SIDE * 3;
    let mut bmp = Vec::with_capacity(54 + bytes as usize);
    bmp.extend(b"BM");
    for number in [54 + bytes, 0, 54, 40, PICTURE_SIDE, PICTURE_SIDE] {
        bmp.extend(number.to_le_bytes());
    }
    // One plane, 24 bits.
    bmp.extend([1, 0, 24, 0]);
    for number in [0, bytes, 0, 0, 0, 0] {
        bmp.extend(u32::to_le_bytes(number));
    }
    for at in 0..PICTURE_SIDE * PICTURE_SIDE {
        let is_bar = (at / PICTURE_SIDE / 8) % 3 == 1 && !(at % PICTURE_SIDE / 4).is_multiple_of(5);
        bmp.extend([if is_bar { 20 } else { 240 }; 3]);
    }
    bmp
}

#[cfg(test)]
mod tests {
    use gpu_inference::InputLimits;

    use super::*;

    #[test]
    fn the_generated_inputs_are_what_each_task_takes() {
        let samples = Samples::write().unwrap();
        for task in Task::ALL.into_iter().filter(|&task| task != Task::OnnxRun) {
            let (file, params) = samples.of(task).unwrap();
            decode(task, file, &params, &InputLimits::default()).unwrap();
        }
    }

    #[test]
    fn a_failed_model_is_a_line_of_the_table() {
        let ran = Ran {
            device: "cuda".to_owned(),
            open: Duration::from_millis(410),
            run: Duration::from_millis(33),
        };
        let trial = |model: &str, outcome| Trial {
            model: model.to_owned(),
            task: "vision.ocr".to_owned(),
            outcome,
        };
        let good = Trials(vec![trial("a", Ok(ran))]);
        assert!(good.all_ran());
        let bad = Trials(vec![trial("b", Err("no CUDA".to_owned()))]);
        assert!(!bad.all_ran());
        assert_eq!(
            format!("{good}{bad}"),
            "MODEL                    TASK              DEVICE      OPEN      RUN\n\
             a                        vision.ocr        cuda      0.41 s   0.03 s\n\
             MODEL                    TASK              DEVICE      OPEN      RUN\n\
             b                        vision.ocr        FAILED  no CUDA\n"
        );
    }
}
