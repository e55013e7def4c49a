//! Everything that can be wrong with a model's folder is found when the model is opened.

use std::error::Error;
use std::path::Path;

use gpu_inference::{
    Blame, Device, DevicePreference, Gpu, Manifest, ModelError, ModelStore, Runtime, RuntimeError,
    RuntimeOptions, Task, open_pipeline,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support::{models_folder, runtime};

const OCR: &str = "pp-ocr-v4-mobile";
const SPEECH: &str = "moonshine-tiny-en";
const VAD: &str = "silero-vad-v6";
const SPEAKER: &str = "dvector-voicefilter";

#[test]
fn the_store_lists_models_and_knows_the_default_of_each_task() {
    let store = ModelStore::open(&models_folder()).expect("run scripts/fetch-models.py");
    let names: Vec<&str> = store.list().map(Manifest::name).collect();
    // A user may have added models of their own to this cache.
    assert!(
        [SPEECH, OCR, "pp-ocr-v6-small", VAD].iter().all(|name| names.contains(name)),
        "{names:?}"
    );
    assert_eq!(store.default_for(Task::VisionOcr).unwrap().name(), "pp-ocr-v6-small");
    assert_eq!(store.default_for(Task::VoiceTranscribe).unwrap().name(), SPEECH);
    assert!(store.get("nothing").is_none());
}

#[test]
fn jobs_that_mean_one_model_are_resolved_alike_however_they_name_it() {
    let store = ModelStore::open(&models_folder()).unwrap();
    let resolved = |task, name: Option<&str>| store.resolve(task, name).unwrap();
    let magika = resolved(Task::TextClassify, None);
    assert_eq!(magika.model(), "magika-v3-3");
    assert_eq!(resolved(Task::TextClassify, Some("magika-v3-3")), magika);
    let graph = resolved(Task::OnnxRun, Some("magika-v3-3"));
    assert_ne!(graph, magika, "tensors need another pipeline");
    let role = store.get("magika-v3-3").unwrap().files()[0].role.clone();
    let with_role = format!("magika-v3-3/{role}");
    assert_eq!(resolved(Task::OnnxRun, Some(&with_role)), graph);
    assert_ne!(
        resolved(Task::OnnxRun, Some("pp-ocr-v6-small/angle")),
        resolved(Task::OnnxRun, Some("pp-ocr-v6-small/detect"))
    );
    let pipeline = gpu_inference::open(&runtime(), &store, &magika, DevicePreference::Cpu).unwrap();
    assert_eq!(pipeline.device(), Device::Cpu);
}

#[test]
fn a_model_that_is_not_here_is_the_box_s_fault_and_one_that_does_something_else_the_job_s() {
    let copy = Copy::of(&[OCR, SPEECH, VAD, SPEAKER]);
    copy.edit(SPEAKER, |text| format!("no_such_key = 1\n{text}"));
    let store = ModelStore::open(copy.0.path()).unwrap();
    let long = "x".repeat(100_000);
    let cases = [
        (Task::VisionOcr, Some("nothing"), "model.unknown", Blame::Box),
        (Task::VisionOcr, Some(long.as_str()), "model.unknown", Blame::Box),
        (Task::TextEmbed, None, "model.unknown", Blame::Box),
        (Task::VoiceTranscribe, Some(SPEAKER), "model.manifest", Blame::Box),
        (Task::VoiceTranscribe, Some(OCR), "model.task", Blame::Input),
        (Task::VoiceTranscribe, Some(VAD), "model.task", Blame::Input),
        (Task::OnnxRun, Some(OCR), "model.graph", Blame::Input),
        (Task::OnnxRun, Some("pp-ocr-v4-mobile/no"), "model.graph", Blame::Input),
    ];
    for (task, name, code, blame) in cases {
        let error = store.resolve(task, name).unwrap_err();
        assert_eq!((error.code(), error.blame()), (code, blame), "{error}");
        assert!(error.to_string().len() < 3_000);
    }
    // What the box has of a model is never the job's fault: a missing file, or another one.
    let path = copy.0.path().join(OCR).join("ch_PP-OCRv4_det_infer.onnx");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(copy.open(OCR).blame(), Blame::Box);
    std::fs::write(&path, "damaged").unwrap();
    assert_eq!(copy.open(OCR).blame(), Blame::Box);
}

#[test]
fn the_cache_holds_the_committed_manifests() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    for entry in committed.read_dir().unwrap() {
        let folder = entry.unwrap();
        let read =
            |path: &Path| std::fs::read_to_string(path.join("model.toml")).unwrap_or_default();
        let cached = models_folder().join(folder.file_name());
        assert!(read(&folder.path()) == read(&cached), "run scripts/fetch-models.py");
    }
}

#[test]
fn a_model_that_is_not_there_or_serves_no_job_is_named() {
    let error = open(&models_folder(), "whisper");
    assert!(matches!(&error, ModelError::Unknown { known, .. } if known.contains(OCR)), "{error}");
    let error = open(&models_folder(), VAD);
    assert_eq!(
        error.to_string(),
        "the model silero-vad-v6 does voice.activity, which only other models use"
    );
    let copy = Copy::of(&[SPEECH]);
    assert!(matches!(copy.open(SPEECH), ModelError::Unknown { model, .. } if model == VAD));
    let copy = Copy::of(&[SPEECH, OCR, SPEAKER]);
    copy.edit(SPEECH, |text| text.replace(VAD, OCR));
    assert!(matches!(copy.open(SPEECH), ModelError::WrongUse { used, .. } if used == OCR));
}

#[test]
fn a_bad_manifest_is_its_own_models_trouble() {
    let copy = Copy::of(&[OCR, VAD]);
    copy.edit(VAD, |text| format!("no_such_key = 1\n{text}"));
    assert!(matches!(copy.open(VAD), ModelError::Manifest(_)));
    let store = ModelStore::open(copy.0.path()).unwrap();
    assert!(open_pipeline(&runtime(), &store, OCR, DevicePreference::Cpu).is_ok());
}

#[test]
fn a_missing_or_damaged_file_is_named() {
    let copy = Copy::of(&[OCR]);
    let path = copy.0.path().join(OCR).join("ch_PP-OCRv4_rec_infer.onnx");
    let mut bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(copy.open(OCR), ModelError::FileMissing { path: found, .. } if found == path));
    std::fs::write(&path, &bytes[..1000]).unwrap();
    assert!(matches!(copy.open(OCR), ModelError::FileSize { found: 1000, .. }));
    bytes[5_000_000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = copy.open(OCR);
    assert!(matches!(error, ModelError::FileHash { .. }), "{error}");
    assert!(error.hint().contains("gpuctl models pull"));
}

#[test]
fn a_file_that_is_no_model_or_another_model_is_refused_before_it_runs() {
    let copy = Copy::of(&[OCR, VAD, SPEAKER, SPEECH]);
    copy.replace(OCR, "ch_PP-OCRv4_det_infer.onnx", b"not a model at all");
    assert!(matches!(copy.open(OCR), ModelError::NotAModel { .. }));
    let angle = copy.read(OCR, "ch_ppocr_mobile_v2.0_cls_infer.onnx");
    copy.replace(OCR, "ch_PP-OCRv4_det_infer.onnx", &angle);
    let error = copy.open(OCR);
    assert!(
        matches!(&error, ModelError::Interface { problem, .. } if problem.contains("output")),
        "{error}"
    );
    copy.replace(VAD, "silero_vad_16k_sequence.onnx", &angle);
    let error = copy.open(SPEECH);
    assert!(matches!(&error, ModelError::Interface { model, .. } if model == VAD), "{error}");
}

#[test]
fn a_vocabulary_of_another_size_is_refused() {
    let copy = Copy::of(&[VAD, SPEAKER, SPEECH]);
    let vocabulary = copy.read(SPEECH, "tokenizer.bin");
    copy.replace(SPEECH, "tokenizer.bin", &vocabulary[..vocabulary.len() / 2]);
    let error = copy.open(SPEECH);
    assert!(
        matches!(&error, ModelError::Interface { problem, .. } if problem.contains("logit")),
        "{error}"
    );
}

#[test]
fn a_dynamically_quantised_model_is_never_batched_whatever_its_manifest_says() {
    let copy = Copy::of(&[VAD, SPEAKER, SPEECH]);
    copy.edit(SPEECH, |text| text.replace("max_batch = 1 ", "max_batch = 16 "));
    let store = ModelStore::open(copy.0.path()).unwrap();
    assert_eq!(store.get(SPEECH).unwrap().max_batch().get(), 16);
    let pipeline = open_pipeline(&runtime(), &store, SPEECH, DevicePreference::Cpu).unwrap();
    assert_eq!(pipeline.batch_max(), 1);
}

#[test]
fn a_folder_that_is_not_its_model_s_name_is_refused() {
    let copy = Copy::of(&[OCR]);
    std::fs::rename(copy.0.path().join(OCR), copy.0.path().join("other")).unwrap();
    assert!(matches!(copy.open("other"), ModelError::Manifest(_)));
    assert!(matches!(copy.open(OCR), ModelError::Unknown { .. }));
    let error = ModelStore::open(Path::new("/nowhere")).unwrap_err();
    assert!(matches!(error, ModelError::Folder { .. }), "{error}");
}

#[test]
fn a_process_keeps_its_first_onnx_runtime() {
    let _first = runtime();
    let another = tempfile::NamedTempFile::new().unwrap();
    let error = Runtime::load(another.path(), RuntimeOptions::default()).unwrap_err();
    assert!(matches!(error, RuntimeError::AlreadyLoaded { .. }), "{error}");
}

#[test]
fn without_a_gpu_auto_is_the_cpu_and_cuda_says_why_not() {
    if Path::new("/dev/nvidia0").exists() {
        return;
    }
    let runtime = runtime();
    assert_eq!(runtime.device(DevicePreference::Auto).unwrap().to_string(), "cpu");
    let error = runtime.device(DevicePreference::Cuda).unwrap_err();
    let said = |error: &RuntimeError| error.source().unwrap().to_string();
    assert!(
        matches!(&error, RuntimeError::NoGpu { .. }) && said(&error).contains("NVIDIA's driver"),
        "{error}"
    );
    // Where a GPU is paid for, `auto` means it, and only a model that may says so of itself.
    let paid = RuntimeOptions { gpu: Gpu::Expected, ..RuntimeOptions::default() };
    let paid = Runtime::load(&Runtime::locate(None).unwrap(), paid).unwrap();
    assert_eq!(paid.device(DevicePreference::Cpu).unwrap(), Device::Cpu);
    assert!(matches!(paid.device(DevicePreference::Auto), Err(RuntimeError::NoGpu { .. })));
    let store = ModelStore::open(&models_folder()).unwrap();
    let open =
        |store: &ModelStore, model| open_pipeline(&paid, store, model, DevicePreference::Auto);
    let error = open(&store, OCR).err().unwrap();
    assert_eq!((error.code(), error.blame()), ("model.device", Blame::Box));
    let store = store.with_devices(&[(OCR.to_owned(), DevicePreference::Auto)].into());
    let pipeline = open(&store, OCR).unwrap();
    assert_eq!(pipeline.device(), Device::Cpu);
    assert!(pipeline.fallback().is_some_and(|reason| reason.to_string().contains("CUDA")));
    let pipeline = open(&store, "dtln").unwrap();
    assert!(pipeline.fallback().is_none(), "its manifest says cpu");
}

/// Models copied to where a test may damage them.
struct Copy(TempDir);

impl Copy {
    fn of(models: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for model in models {
            std::fs::create_dir(folder.path().join(model)).unwrap();
            for entry in
                models_folder().join(model).read_dir().expect("run scripts/fetch-models.py")
            {
                let from = entry.unwrap().path();
                std::fs::copy(&from, folder.path().join(model).join(from.file_name().unwrap()))
                    .unwrap();
            }
        }
        Self(folder)
    }

    fn open(&self, model: &str) -> ModelError {
        open(self.0.path(), model)
    }

    fn read(&self, model: &str, file: &str) -> Vec<u8> {
        std::fs::read(self.0.path().join(model).join(file)).unwrap()
    }

    fn edit(&self, model: &str, change: impl Fn(String) -> String) {
        let path = self.0.path().join(model).join("model.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let changed = change(text.clone());
        assert_ne!(changed, text);
        std::fs::write(path, changed).unwrap();
    }

    /// Swaps a file's content and lets the manifest agree.
    fn replace(&self, model: &str, file: &str, bytes: &[u8]) {
        let old = self.read(model, file);
        std::fs::write(self.0.path().join(model).join(file), bytes).unwrap();
        let size = |bytes: &[u8]| format!("size_bytes = {}\n", bytes.len());
        self.edit(model, |text| {
            let (before, after) = text.split_at(text.find(&hash(&old)).unwrap());
            let after = after.replacen(&hash(&old), &hash(bytes), 1);
            format!("{before}{}", after.replacen(&size(&old), &size(bytes), 1))
        });
    }
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn open(folder: &Path, model: &str) -> ModelError {
    let store = ModelStore::open(folder).unwrap();
    open_pipeline(&runtime(), &store, model, DevicePreference::Cpu).err().expect("it must not open")
}
