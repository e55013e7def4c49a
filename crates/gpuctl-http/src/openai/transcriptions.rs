//! `POST /v1/audio/transcriptions`.

use std::convert::Infallible;
use std::fmt::Write;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use gpu_tasks::Task;
use serde_json::{Value, json};

use super::{COMMENT_EVERY, Joined, error_value, ignored, unsupported, wanted};
use crate::access::Caller;
use crate::body::{Parts, unknown_field};
use crate::problem::Problem;
use crate::{Api, Shared};

/// The fields that OpenAI's clients send; `languages` is used where it has one. Lists are sent as `name[]`, objects as `name[key]`.
const FIELDS: [&str; 7] = [
    "file",
    "model",
    "language",
    "languages",
    "response_format",
    "stream",
    "timestamp_granularities",
];

/// Those that change nothing here.
const IGNORED: [&str; 8] = [
    "prompt",
    "temperature",
    "include",
    "chunking_strategy",
    "keywords",
    "known_speaker_names",
    "known_speaker_references",
    "user",
];

/// How the answer is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Text,
    VerboseJson,
    Srt,
    Vtt,
}

/// What is asked for beside the job.
struct Asked {
    format: Format,
    language: Option<String>,
    is_stream: bool,
    ignored: Vec<&'static str>,
}

/// `POST /v1/audio/transcriptions`.
pub(crate) async fn transcriptions(
    State(api): State<Shared>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let parts = Parts::read(&api, request).await?;
    let (asked, job) = read(parts)?;
    if asked.is_stream {
        let joined = api.join(&caller, vec![job]).await?;
        return Ok(ignored(streamed(api, joined), &asked.ignored));
    }
    let (_, output) = api.call(&caller, job).await?;
    Ok(ignored(written(&asked, &output), &asked.ignored))
}

fn read(parts: Parts) -> Result<(Asked, crate::create::Wanted), Problem> {
    let mut asked =
        Asked { format: Format::Json, language: None, is_stream: false, ignored: Vec::new() };
    let (mut model, mut languages) = (None, Vec::new());
    for (name, text) in parts.fields {
        match name.split('[').next().unwrap_or_default() {
            "model" => model = Some(text),
            "language" if !text.is_empty() => asked.language = Some(text),
            "response_format" => asked.format = format(&text)?,
            "stream" => asked.is_stream = text.eq_ignore_ascii_case("true"),
            "languages" => languages.push(text),
            "timestamp_granularities" if text == "word" => {
                return Err(unsupported(
                    "unsupported_granularity",
                    "timestamp_granularities",
                    "there are times of segments, not of words",
                )
                .hint("ask for `segment`"));
            }
            base if FIELDS.contains(&base) => {}
            base => match IGNORED.iter().find(|known| **known == base) {
                Some(known) if asked.ignored.contains(known) => {}
                Some(known) => asked.ignored.push(known),
                None => {
                    let known: Vec<String> =
                        FIELDS.iter().chain(&IGNORED).map(|name| (*name).to_owned()).collect();
                    return Err(unknown_field(&name, &known));
                }
            },
        }
    }
    match <[String; 1]>::try_from(languages) {
        Ok([one]) => asked.language = asked.language.or(Some(one)),
        Err(several) if several.is_empty() => {}
        Err(_) => asked.ignored.push("languages"),
    }
    let model = model.ok_or_else(|| {
        unsupported("model_missing", "model", "there is no `model`").hint("e.g. `whisper-1`")
    })?;
    let mut job = wanted(Task::VoiceTranscribe, &model);
    // Models of one language need not be told which: English is what most of them know.
    let is_default = job.job.model.is_none();
    let language = asked.language.as_deref();
    if let Some(language) =
        language.filter(|language| !(is_default && matches!(*language, "en" | "english")))
    {
        job.job.params.insert("language".to_owned(), Value::from(language));
    }
    job.files = parts.files;
    Ok((asked, job))
}

fn format(name: &str) -> Result<Format, Problem> {
    match name {
        "json" => Ok(Format::Json),
        "text" => Ok(Format::Text),
        "verbose_json" => Ok(Format::VerboseJson),
        "srt" => Ok(Format::Srt),
        "vtt" => Ok(Format::Vtt),
        other => {
            let shown = gpuctl_core::text::excerpt(other);
            Err(unsupported(
                "unsupported_format",
                "response_format",
                format!("`{shown}` is not a format of transcripts"),
            )
            .hint("one of json, text, verbose_json, srt, vtt"))
        }
    }
}

fn written(asked: &Asked, output: &Value) -> Response {
    let text = output["text"].as_str().unwrap_or_default();
    let plain = |kind: &'static str, text: String| ([(CONTENT_TYPE, kind)], text).into_response();
    match asked.format {
        Format::Json => Json(json!({ "text": text })).into_response(),
        Format::Text => plain("text/plain; charset=utf-8", format!("{text}\n")),
        Format::Srt => plain("application/x-subrip; charset=utf-8", subtitles(output, ',')),
        Format::Vtt => {
            plain("text/vtt; charset=utf-8", format!("WEBVTT\n\n{}", subtitles(output, '.')))
        }
        Format::VerboseJson => Json(json!({
            "task": "transcribe",
            "language": asked.language.as_deref().unwrap_or("unknown"),
            "duration": output["audio_seconds"],
            "text": text,
            "segments": segments(output).iter().enumerate().map(verbose).collect::<Vec<_>>(),
        }))
        .into_response(),
    }
}

fn segments(output: &Value) -> &[Value] {
    output["segments"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What the models here do not say is zero, as clients need a number.
fn verbose((id, segment): (usize, &Value)) -> Value {
    json!({
        "id": id, "seek": 0, "start": segment["start_seconds"], "end": segment["end_seconds"], "text": segment["text"],
        "tokens": [], "temperature": 0.0, "avg_logprob": 0.0, "compression_ratio": 0.0, "no_speech_prob": 0.0,
    })
}

/// SRT; WebVTT differs in the mark before the milliseconds, and may have numbers, too.
fn subtitles(output: &Value, mark: char) -> String {
    let mut text = String::new();
    for (index, segment) in segments(output).iter().enumerate() {
        let time = |name: &str| clock(segment[name].as_f64().unwrap_or_default(), mark);
        let said = segment["text"].as_str().unwrap_or_default().trim();
        let (begin, end) = (time("start_seconds"), time("end_seconds"));
        let _ = write!(text, "{}\n{begin} --> {end}\n{said}\n\n", index + 1);
    }
    text
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times of a recording")]
fn clock(seconds: f64, mark: char) -> String {
    let millis = (seconds.max(0.0) * 1e3).round() as u64;
    let (seconds, millis) = (millis / 1_000, millis % 1_000);
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}{mark}{millis:03}", seconds % 60)
}

/// The events of a stream: the whole text at once, since a job has no parts. Comments keep the connection open while the box boots.
fn streamed(api: Shared, joined: Joined) -> Response {
    let events = async move { stream::iter(events(&api, joined).await.map(Ok::<_, Infallible>)) };
    let events = stream::once(events).flatten();
    Sse::new(events).keep_alive(KeepAlive::new().interval(COMMENT_EVERY)).into_response()
}

async fn events(api: &Api, joined: Joined) -> [Event; 2] {
    let event = |data: &Value| Event::default().data(data.to_string());
    match api.outputs(joined).await.map(|mut outputs| outputs.remove(0)) {
        Ok((_, output)) => [
            event(&json!({ "type": "transcript.text.delta", "delta": output["text"] })),
            event(&json!({ "type": "transcript.text.done", "text": output["text"] })),
        ],
        Err(problem) => [event(&json!(error_value(&problem).1)), Event::default().comment("end")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtitles_have_the_times_of_segments() {
        let output = json!({ "segments": [
            { "start_seconds": 0.0, "end_seconds": 1.25, "text": " Ever tried." },
            { "start_seconds": 3_661.5, "end_seconds": 3_662.0, "text": "Fail better." },
        ] });
        let srt = "1\n00:00:00,000 --> 00:00:01,250\nEver tried.\n\n2\n01:01:01,500 --> 01:01:02,000\nFail better.\n\n";
        assert_eq!(subtitles(&output, ','), srt);
        assert_eq!(subtitles(&output, '.'), srt.replace(',', "."));
    }
}
