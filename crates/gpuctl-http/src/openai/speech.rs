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
    /// `wav` (without it, too), `pcm` (24 kHz, 16 bits, one channel) or `opus`.
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

/// How the sound is written.
#[derive(Clone, Copy)]
enum Format {
    Wav,
    Pcm,
    Opus,
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
    let (kind, bytes) = match format {
        Format::Wav => ("audio/wav", wav),
        Format::Pcm => ("audio/pcm", converted(wav, sound::to_pcm).await?),
        Format::Opus => ("audio/ogg; codecs=opus", converted(wav, sound::to_opus).await?),
    };
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

fn format(name: Option<&str>) -> Result<Format, Problem> {
    match name {
        None | Some("wav") => Ok(Format::Wav),
        Some("pcm") => Ok(Format::Pcm),
        Some("opus") => Ok(Format::Opus),
        Some(other) => {
            let shown = gpuctl_core::text::excerpt(other);
            let detail =
                format!("sound is not written as `{shown}`: its encoder is not a part of gpuctl");
            Err(unsupported("unsupported_format", "response_format", detail)
                .hint("ask for wav, pcm or opus, e.g. `response_format=\"wav\"`"))
        }
    }
}
