//! `POST /v1/audio/speech`.

use axum::extract::{Extension, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use gpu_tasks::Task;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Number, Value};

use super::{ignored, sound, unsupported, wanted};
use crate::Shared;
use crate::access::Caller;
use crate::body;
use crate::files::listed;
use crate::problem::Problem;

/// A text to be spoken.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpeechRequest {
    /// `tts-1` and the like stand for the default model; else one of `GET /v1/models`.
    model: String,
    /// The text.
    input: String,
    /// OpenAI's names stand for the model's first voice; else one of the model's.
    voice: Option<Voice>,
    /// `mp3` (without it, too), `opus`, `flac`, `wav` or `pcm` (24 kHz, 16 bits, one channel).
    response_format: Option<String>,
    /// 2 speaks twice as fast.
    speed: Option<Number>,
    /// Ignored: no model here takes instructions.
    instructions: Option<String>,
    /// Only `audio`.
    stream_format: Option<String>,
}

/// A voice, by its name or as an object.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Voice {
    Named(String),
    Own { id: String },
}

/// OpenAI's voices.
const VOICES: [&str; 13] = [
    "alloy", "ash", "ballad", "coral", "echo", "fable", "nova", "onyx", "sage", "shimmer", "verse",
    "marin", "cedar",
];

/// The largest recording that is converted.
const SOUND_BYTES_MAX: u64 = 512 << 20;

/// A form in which the sound is written, with its media type.
struct Format {
    name: &'static str,
    media_type: &'static str,
    convert: fn(&[u8]) -> Result<Vec<u8>, String>,
}

/// The first is that of a call that names none, as with OpenAI.
const FORMATS: [Format; 5] = [
    Format { name: "mp3", media_type: "audio/mpeg", convert: sound::to_mp3 },
    Format { name: "opus", media_type: "audio/ogg; codecs=opus", convert: sound::to_opus },
    Format { name: "flac", media_type: "audio/flac", convert: sound::to_flac },
    Format { name: "wav", media_type: "audio/wav", convert: as_it_is },
    Format { name: "pcm", media_type: "audio/pcm", convert: sound::to_pcm },
];

/// The result of a job is a WAV.
#[expect(clippy::unnecessary_wraps, reason = "it is one of several")]
fn as_it_is(wav: &[u8]) -> Result<Vec<u8>, String> {
    Ok(wav.to_vec())
}

/// `POST /v1/audio/speech`.
pub(crate) async fn speech(
    State(api): State<Shared>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let asked: SpeechRequest = body::json(request).await?;
    let format = format(asked.response_format.as_deref())?;
    if asked.stream_format.as_deref().is_some_and(|format| format != "audio") {
        return Err(unsupported(
            "unsupported_format",
            "stream_format",
            "sound is not sent as events",
        )
        .hint("leave `stream_format` out"));
    }
    let mut job = wanted(Task::VoiceSynthesize, &asked.model);
    job.job.text = Some(asked.input);
    let voice = asked.voice.map(|(Voice::Named(name) | Voice::Own { id: name })| name);
    if let Some(voice) = voice.filter(|voice| !VOICES.contains(&voice.as_str())) {
        job.job.params.insert("voice".to_owned(), Value::from(voice));
    }
    if let Some(speed) = asked.speed.filter(|speed| speed.as_f64() != Some(1.0)) {
        job.job.params.insert("speed".to_owned(), Value::Number(speed));
    }
    let (entry, _) = api.call(&caller, job).await?;
    let wav = api.open(listed(&entry, "speech.wav")?).await?.read(SOUND_BYTES_MAX).await?;
    let (kind, bytes) = (format.media_type, converted(wav, format.convert).await?);
    let unused = asked.instructions.map(|_| "instructions");
    Ok(ignored(([(CONTENT_TYPE, kind)], bytes).into_response(), unused.as_slice()))
}

async fn converted(
    wav: Vec<u8>,
    convert: fn(&[u8]) -> Result<Vec<u8>, String>,
) -> Result<Vec<u8>, Problem> {
    let done = tokio::task::spawn_blocking(move || convert(&wav)).await;
    done.unwrap_or_else(|error| Err(error.to_string())).map_err(|error| {
        let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
        Problem::new(status, "sound.convert", format!("the sound cannot be converted: {error}"))
            .hint("ask for `wav`")
    })
}

fn format(name: Option<&str>) -> Result<&'static Format, Problem> {
    let Some(name) = name else { return Ok(&FORMATS[0]) };
    FORMATS.iter().find(|format| format.name == name).ok_or_else(|| {
        let shown = gpuctl_core::text::excerpt(name);
        let detail = format!("sound is not written as `{shown}`: gpuctl has no encoder for it");
        unsupported("unsupported_format", "response_format", detail)
            .hint(format!("ask for {}", FORMATS.map(|format| format.name).join(", ")))
    })
}
