//! Each warning has an input that raises it, and a healthy one that does not.

use gpu_inference::{InputLimits, Params, Task, WarningCode, decode};

use crate::craft::{self, Wave};
use crate::pictures::made;
use crate::support::{pipeline, run_one, wav};

/// A file that raises the warning, and one as it should be.
struct Pair {
    task: Task,
    /// The model that says so, if it is not known before one runs.
    model: Option<&'static str>,
    raises: Vec<u8>,
    healthy: Vec<u8>,
}

/// For each code, so that none can be added without its pair.
fn pair(code: WarningCode) -> Pair {
    let healthy = wav(16_000, &tone(6_000));
    match code {
        WarningCode::AudioQuiet => of_recordings(wav(16_000, &tone(60)), wav(16_000, &tone(600))),
        WarningCode::AudioSilent => of_recordings(wav(16_000, &tone(3)), wav(16_000, &tone(60))),
        WarningCode::AudioChannels => {
            let stereo = |right: i16| -> Vec<i16> {
                tone(6_000).into_iter().flat_map(|x| [x, x / 2 * right]).collect()
            };
            of_recordings(of_channels(2, &stereo(-2)), of_channels(2, &stereo(2)))
        }
        WarningCode::AudioLength => {
            let announced = Some(8_000);
            let data = healthy[44..].to_vec();
            let raises = Wave { rate_hz: 16_000, data, data_length: announced, ..Wave::default() };
            of_recordings(raises.bytes(), healthy)
        }
        WarningCode::AudioSamples => {
            of_recordings(floats(|x| if x > 0.9 { f32::NAN } else { x }), floats(|x| x))
        }
        WarningCode::AudioScale => of_recordings(floats(|x| x * 20_000.0), floats(|x| x * 2.0)),
        WarningCode::AudioDamaged => {
            of_recordings([healthy.clone(), healthy[..100].to_vec()].concat(), healthy)
        }
        WarningCode::AudioTracks => {
            let packets = vec![vec![0xfc, 0xff, 0xfe]; 50];
            let head = b"OpusHead\x01\x01\x38\x01\x80\xbb\0\0\0\0\0";
            of_recordings(
                craft::webm_of_tracks(2, 48_000.0, &packets, head),
                craft::webm(48_000.0, &packets, head),
            )
        }
        WarningCode::PictureDamaged => {
            let page = made::page();
            of_pictures(made::damaged_jpeg(&page), made::restarted_jpeg(&page).0)
        }
        WarningCode::PictureLinesSmall => {
            let print = |letters| made::png(made::small_print(letters));
            of_pages(print(7.0), print(24.0))
        }
        WarningCode::PicturePagesLeftOut => {
            of_pictures(made::grey_pages(&[1, 1]), made::grey_pages(&[1]))
        }
        WarningCode::PicturePagesUnread => {
            of_pages(made::grey_pages(&[1, 999]), made::grey_pages(&[1, 1]))
        }
        WarningCode::PictureShrunk => {
            let page = |letters| made::png(made::large_page(letters));
            of_pages(page(14.0), page(70.0))
        }
        WarningCode::SpeechLeftOut => of_speech("Hello 👍", "Hello"),
        WarningCode::SpeechScript => of_speech("Hello, good morning мир", "Hello, good morning"),
        WarningCode::SpeechIncomplete => of_speech("Hello, good мир", "Hello, good"),
        WarningCode::TextUnknown => {
            let (raises, healthy) = ("x".repeat(99_999).into_bytes(), b"a cat".to_vec());
            Pair { task: Task::TextEmbed, model: Some("minilm-l6-v2-int8"), raises, healthy }
        }
        WarningCode::TextEncoding => of_texts(b"caf\xe9 au lait", "café au lait".as_bytes()),
        WarningCode::TextDamaged => {
            of_texts(b"gr\xc3\xbc\xc3\x9fe, gr\xc3\xb6\xc3", "grüße, größe".as_bytes())
        }
    }
}

#[test]
fn each_warning_is_raised_by_what_it_is_about_and_not_by_a_healthy_input() {
    for code in WarningCode::ALL {
        let Pair { task, model, raises, healthy } = pair(code);
        let raised = |bytes: &[u8]| raised(task, model, bytes).contains(&code);
        assert!(raised(&raises), "{code:?} is not raised");
        assert!(!raised(&healthy), "{code:?} is raised by a healthy input");
    }
}

fn of_recordings(raises: Vec<u8>, healthy: Vec<u8>) -> Pair {
    Pair { task: Task::VoiceTranscribe, model: None, raises, healthy }
}

fn of_pictures(raises: Vec<u8>, healthy: Vec<u8>) -> Pair {
    Pair { task: Task::VisionDetect, model: None, raises, healthy }
}

/// Where the model says so.
fn of_pages(raises: Vec<u8>, healthy: Vec<u8>) -> Pair {
    Pair { task: Task::VisionOcr, model: Some("pp-ocr-v6-small"), raises, healthy }
}

fn of_texts(raises: &[u8], healthy: &[u8]) -> Pair {
    let (raises, healthy) = (raises.to_vec(), healthy.to_vec());
    Pair { task: Task::TextEmbed, model: None, raises, healthy }
}

fn of_speech(raises: &str, healthy: &str) -> Pair {
    let (raises, healthy) = (raises.into(), healthy.into());
    Pair { task: Task::VoiceSynthesize, model: Some("piper-en-us-joe"), raises, healthy }
}

/// The codes of what decoding a file says, and of what its model does.
fn raised(task: Task, model: Option<&str>, bytes: &[u8]) -> Vec<WarningCode> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let (params, limits) = (Params::default(), InputLimits::default());
    let prepared = decode(task, file.path(), &params, &limits).unwrap();
    let remarks = match (model, prepared.remarks().warnings.as_slice()) {
        (Some(model), []) => run_one(&mut pipeline(model), prepared).remarks,
        _ => prepared.remarks().clone(),
    };
    remarks.warnings.iter().map(|warning| warning.code).collect()
}

/// A second of a square wave.
fn tone(height: i16) -> Vec<i16> {
    (0..16_000).map(|at| if at / 20 % 2 == 0 { height } else { -height }).collect()
}

fn of_channels(channels: u16, samples: &[i16]) -> Vec<u8> {
    let data = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    Wave { channels, rate_hz: 16_000, data, ..Wave::default() }.bytes()
}

/// A second of numbers from 0 to 1, each changed.
fn floats(change: impl Fn(f32) -> f32) -> Vec<u8> {
    let samples = (0..16_000_u16).map(|at| change(f32::from(at % 100) / 100.0));
    let data = samples.flat_map(f32::to_le_bytes).collect();
    Wave { tag: 3, bits: 32, rate_hz: 16_000, data, ..Wave::default() }.bytes()
}
