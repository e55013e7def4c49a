//! What a job's `output` says, for people: each kind of task in its own words. `--json` has all of it.

use serde_json::Value;

use super::words::{Lines, shown_name, span};

/// The most objects, labels, numbers and tensors of an answer that are shown.
const SHOWN_MAX: usize = 10;

/// Adds the answer of an output of any task; a kind that is not known has none.
pub(super) fn add(lines: &mut Lines, output: &Value) {
    text(lines, output);
    labels(lines, output);
    vector(lines, output);
    objects(lines, output);
    tensors(lines, output);
    sound(lines, output);
    command(lines, output);
}

/// A transcript, with speakers where the job asked for them, or the lines of a page.
fn text(lines: &mut Lines, output: &Value) {
    let Some(text) = output["text"].as_str() else { return };
    let spoken: Vec<String> = list(output, "segments").iter().filter_map(spoken).collect();
    match text.trim() {
        "" => lines.label("text", "none was found"),
        _ if spoken.is_empty() => lines.labelled_text("text", text),
        _ => lines.labelled_text("text", &spoken.join("\n")),
    }
}

/// A piece of speech whose speaker is known.
fn spoken(segment: &Value) -> Option<String> {
    let (speaker, text) = (segment["speaker"].as_str()?, segment["text"].as_str()?);
    let begin = span(segment["start_seconds"].as_f64()?.floor());
    Some(format!("{speaker} at {begin}: {text}"))
}

/// The best label, and what else it could be.
fn labels(lines: &mut Lines, output: &Value) {
    let Some(best) = output["label"].as_str() else { return };
    let all = list(output, "labels");
    let score = all.first().and_then(|first| first["score"].as_f64());
    let score = score.map(|score| format!(" ({score:.2})")).unwrap_or_default();
    let media_type = output["media_type"].as_str().map(|kind| format!(", {}", shown_name(kind)));
    let media_type = media_type.unwrap_or_default();
    lines.label(
        "answer",
        format!("{}{score}{media_type}{}", shown_name(best), of_beginning(output)),
    );
    let others: Vec<String> = all.iter().skip(1).take(SHOWN_MAX).map(scored).collect();
    if !others.is_empty() {
        lines.label("or", others.join(", "));
    }
}

fn vector(lines: &mut Lines, output: &Value) {
    let numbers = list(output, "vector").len();
    if numbers > 0 {
        let words = format!("{numbers} numbers, of length 1; --json prints them");
        lines.label("vector", format!("{words}{}", of_beginning(output)));
    }
}

fn of_beginning(output: &Value) -> &'static str {
    if output["truncated"] == true {
        "; of the beginning: the text is too long for the model"
    } else {
        ""
    }
}

/// What is in a picture, with its edges, and the file of its mask if it has one.
fn objects(lines: &mut Lines, output: &Value) {
    let Some(objects) = output["objects"].as_array() else { return };
    if objects.is_empty() {
        lines.label("objects", "none was found");
    }
    for (index, object) in objects.iter().take(SHOWN_MAX).enumerate() {
        let edges = numbers(&object["edges_pixels"], 0);
        let place = match edges.as_slice() {
            [left, top, right, bottom] => format!(", from {left},{top} to {right},{bottom}"),
            _ => String::new(),
        };
        let mask = object["file"].as_str().map(|file| format!(", mask {}", shown_name(file)));
        let words = format!("{}{place}{}", scored(object), mask.unwrap_or_default());
        lines.label(if index == 0 { "objects" } else { "" }, words);
    }
    and_more(lines, objects.len());
}

fn tensors(lines: &mut Lines, output: &Value) {
    let tensors = list(output, "tensors");
    for (index, tensor) in tensors.iter().take(SHOWN_MAX).enumerate() {
        let shape = numbers(&tensor["shape"], 0).join("×");
        let data = numbers(&tensor["data"], 4);
        let more = if data.len() > SHOWN_MAX { " …" } else { "" };
        let shown = data.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(" ");
        let shown = if data.is_empty() { String::new() } else { format!(": {shown}{more}") };
        let name = shown_name(tensor["name"].as_str().unwrap_or_default());
        let dtype = shown_name(tensor["dtype"].as_str().unwrap_or_default());
        let label = if index == 0 { "tensors" } else { "" };
        lines.label(label, format!("{name}, {dtype} {shape}{shown}"));
    }
    and_more(lines, tensors.len());
}

fn sound(lines: &mut Lines, output: &Value) {
    if let (Some(seconds), Some(rate)) =
        (output["audio_seconds"].as_f64(), output["sample_rate_hz"].as_u64())
    {
        lines.label("sound", format!("{seconds:.1} s at {rate} Hz"));
    }
}

/// What a program of the configuration did, and the numbers that it reported last.
fn command(lines: &mut Lines, output: &Value) {
    let (Some(attempts), Some(ran)) = (output["attempts"].as_u64(), output["ran_seconds"].as_f64())
    else {
        return;
    };
    let attempts =
        if attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") };
    let early = if output["stopped_at_soft_max"] == true { "; it stopped at soft_max" } else { "" };
    lines.label("ran", format!("{} in {attempts}{early}", span(ran)));
    let metrics = output["metrics"].as_object().into_iter().flatten();
    let metrics: Vec<String> = metrics
        .take(SHOWN_MAX)
        .map(|(name, value)| format!("{} {value}", shown_name(name)))
        .collect();
    if !metrics.is_empty() {
        lines.label("metrics", metrics.join(", "));
    }
}

fn scored(one: &Value) -> String {
    let label = shown_name(one["label"].as_str().unwrap_or("object"));
    match one["score"].as_f64() {
        Some(score) => format!("{label} ({score:.2})"),
        None => label,
    }
}

fn and_more(lines: &mut Lines, all: usize) {
    let more = all.saturating_sub(SHOWN_MAX);
    if more > 0 {
        lines.label("", format!("and {more} more; --json has all"));
    }
}

fn list<'a>(output: &'a Value, field: &str) -> &'a [Value] {
    output[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn numbers(list: &Value, decimals: usize) -> Vec<String> {
    let numbers = list.as_array().into_iter().flatten().filter_map(Value::as_f64);
    numbers.map(|number| format!("{number:.decimals$}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(output: &Value) -> String {
        let mut lines = Lines::default();
        add(&mut lines, output);
        lines.text().to_owned()
    }

    #[test]
    fn the_answer_of_every_task_is_shown() {
        let edges = json!([1.2, 2.0, 30.6, 40.0]);
        for (output, expected) in [
            (
                json!({"text": "a\nb", "segments": [{"start_seconds": 0, "text": "a"}]}),
                "  text      a\n            b",
            ),
            (json!({"text": " "}), "  text      none was found"),
            (
                json!({"text": "hi yes", "segments": [
                    {"start_seconds": 0.4, "text": "hi", "speaker": "S1"},
                    {"start_seconds": 61.9, "text": "yes", "speaker": "S2"},
                ]}),
                "  text      S1 at 0s: hi\n            S2 at 1m1s: yes",
            ),
            (
                json!({"label": "png", "media_type": "image/png", "truncated": false, "labels": [
                    {"label": "png", "score": 0.987}, {"label": "txt", "score": 0.01},
                ]}),
                "  answer    png (0.99), image/png\n  or        txt (0.01)",
            ),
            (
                json!({"vector": [0.6, 0.8], "truncated": true}),
                "  vector    2 numbers, of length 1; --json prints them; of the beginning: the text is too long for the model",
            ),
            (
                json!({"objects": [{"label": "face", "score": 0.5, "edges_pixels": edges}]}),
                "  objects   face (0.50), from 1,2 to 31,40",
            ),
            (
                json!({"objects": [{"file": "mask-1.png", "edges_pixels": null, "pixels": 0}]}),
                "  objects   object, mask mask-1.png",
            ),
            (json!({"objects": []}), "  objects   none was found"),
            (
                json!({"tensors": [{"name": "y", "dtype": "float32", "shape": [1, 2], "data": [0.5, 1], "file": "y.npy"}]}),
                "  tensors   y, float32 1×2: 0.5000 1.0000",
            ),
            (
                json!({"audio_seconds": 3.12, "sample_rate_hz": 24_000}),
                "  sound     3.1 s at 24000 Hz",
            ),
            (
                json!({"command": "command.train", "attempts": 2, "ran_seconds": 75, "stopped_at_soft_max": false, "metrics": {"loss": 0.25}}),
                "  ran       1m15s in 2 attempts\n  metrics   loss 0.25",
            ),
            (json!({"new": 1}), ""),
        ] {
            assert_eq!(shown(&output), expected.trim_end(), "{output}");
        }
    }

    #[test]
    fn many_objects_are_cut_and_hostile_names_escaped() {
        let object = json!({"label": "\u{1b}[2J", "score": 1.0, "edges_pixels": [0, 0, 1, 1]});
        let text = shown(&json!({"objects": vec![object; 100]}));
        assert_eq!(text.lines().count(), SHOWN_MAX + 1, "{text}");
        assert!(text.ends_with("and 90 more; --json has all"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
