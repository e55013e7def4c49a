//! Results by their kind. They are whatever a worker wrote, so that each field is looked for, and none is relied on.

use serde_json::Value;

use crate::query::escaped;

/// The most rows of a table of segments, labels, objects, tensors or files.
const ROWS_MAX: usize = 500;

/// Numbers of a vector that are shown.
const NUMBERS_SHOWN: usize = 8;

/// The longest text that is shown, in characters.
const TEXT_CHARS_MAX: usize = 50_000;

/// A result as a page shows it.
#[derive(Default)]
pub(crate) struct Shown {
    pub(crate) text: Option<String>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) labels: Vec<Label>,
    pub(crate) vector: Option<String>,
    pub(crate) picture: Option<Picture>,
    pub(crate) tensors: Vec<[String; 3]>,
    pub(crate) files: Vec<File>,
    pub(crate) warnings: Vec<(String, String)>,
    /// Whether the input is a recording that can be listened to beside the text.
    pub(crate) has_recording: bool,
}

/// A piece of speech.
pub(crate) struct Segment {
    pub(crate) seconds: String,
    pub(crate) begin: String,
    pub(crate) speaker: String,
    pub(crate) text: String,
}

/// A label with its score.
pub(crate) struct Label {
    pub(crate) name: String,
    pub(crate) percent: String,
    pub(crate) score: String,
}

/// What was found in a picture, in its own pixels.
pub(crate) struct Picture {
    pub(crate) width: u64,
    pub(crate) height: u64,
    pub(crate) outlines: Vec<Outline>,
}

/// An object or a line.
pub(crate) struct Outline {
    pub(crate) points: String,
    pub(crate) name: String,
}

/// A file of the result.
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) size: String,
    /// `audio`, `image` or empty.
    pub(crate) kind: &'static str,
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

fn rows<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> {
    value[field].as_array().into_iter().flatten().take(ROWS_MAX)
}

fn score(value: &Value) -> Option<f64> {
    value["score"].as_f64().filter(|score| score.is_finite())
}

/// The result in a line.
pub(crate) fn summary(task: &str, output: &Value) -> String {
    let many = |field: &str| output[field].as_array().map(Vec::len);
    if let Some(label) = output["label"].as_str() {
        let first = output["labels"].get(0).and_then(score);
        return first.map_or(label.to_owned(), |score| format!("{label} ({score:.2})"));
    }
    if let Some(text) = output["text"].as_str() {
        let line = text.split_whitespace().take(40).collect::<Vec<_>>().join(" ");
        return if line.is_empty() { "no text was found".to_owned() } else { line };
    }
    if let Some(numbers) = many("vector") {
        return format!("a vector of {numbers} numbers");
    }
    if let Some(objects) = output["objects"].as_array() {
        let mut names: Vec<&str> = objects.iter().map(|one| text(one, "label")).collect();
        names.retain(|name| !name.is_empty());
        names.dedup();
        names.truncate(6);
        let of = crate::words::count(objects.len() as u64, "object");
        return if names.is_empty() { of } else { format!("{of}: {}", names.join(", ")) };
    }
    if let Some(tensors) = many("tensors") {
        return crate::words::count(tensors as u64, "tensor");
    }
    if let Some(seconds) = output["audio_seconds"].as_f64() {
        return format!("{seconds:.1} s of sound");
    }
    match many("files") {
        Some(files) if files > 0 => crate::words::count(files as u64, "file"),
        _ => format!("the output of {task}"),
    }
}

impl Shown {
    /// The result of a job at this address.
    pub(crate) fn of(address: &str, output: &Value) -> Self {
        let segments: Vec<Segment> = rows(output, "segments").map(Segment::of).collect();
        let tensor = |one: &Value| {
            let shape = rows(one, "shape").map(ToString::to_string).collect::<Vec<_>>();
            let first = numbers(&one["data"]).unwrap_or_else(|| "in its file".to_owned());
            [
                text(one, "name").to_owned(),
                format!("{} [{}]", text(one, "dtype"), shape.join(", ")),
                first,
            ]
        };
        let warning = |one: &Value| (text(one, "message").to_owned(), text(one, "code").to_owned());
        let written = output["text"].as_str().filter(|_| segments.is_empty());
        Self {
            text: written.map(|text| crate::words::readable(text, TEXT_CHARS_MAX)),
            has_recording: output["segments"].is_array(),
            segments,
            labels: rows(output, "labels").filter_map(Label::of).collect(),
            vector: numbers(&output["vector"]),
            picture: Picture::of(output),
            tensors: rows(output, "tensors").map(tensor).collect(),
            files: rows(output, "files").map(|file| File::of(address, file)).collect(),
            warnings: rows(output, "warnings").map(warning).collect(),
        }
    }

    /// Whether there is something to show beside its JSON.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_none()
            && self.segments.is_empty()
            && self.labels.is_empty()
            && self.vector.is_none()
            && self.picture.is_none()
            && self.tensors.is_empty()
            && self.files.is_empty()
    }
}

impl Segment {
    fn of(segment: &Value) -> Self {
        let seconds = segment["start_seconds"].as_f64().unwrap_or_default().clamp(0.0, 1e6);
        let (minutes, rest) = ((seconds / 60.0).floor(), seconds % 60.0);
        Self {
            seconds: format!("{seconds:.1}"),
            begin: format!("{minutes:.0}:{rest:04.1}"),
            speaker: text(segment, "speaker").to_owned(),
            text: text(segment, "text").to_owned(),
        }
    }
}

impl Label {
    fn of(label: &Value) -> Option<Self> {
        let score = score(label)?.clamp(0.0, 1.0);
        Some(Self {
            name: text(label, "label").to_owned(),
            percent: format!("{:.1} %", score * 100.0),
            score: format!("{score:.3}"),
        })
    }
}

/// The first numbers of a vector, and how many there are.
fn numbers(vector: &Value) -> Option<String> {
    let numbers = vector.as_array()?;
    let first: Vec<String> = numbers
        .iter()
        .take(NUMBERS_SHOWN)
        .map(|number| number.as_f64().map_or_else(|| number.to_string(), |n| format!("{n:.4}")))
        .collect();
    let more = if numbers.len() > NUMBERS_SHOWN { ", …" } else { "" };
    Some(format!("{} numbers: {}{more}", numbers.len(), first.join(", ")))
}

impl Picture {
    /// Objects with edges, or lines with corners on the first page.
    fn of(output: &Value) -> Option<Self> {
        let (width, height) = (output["width_pixels"].as_u64()?, output["height_pixels"].as_u64()?);
        let is_first = |line: &&Value| line["page"].as_u64().unwrap_or(1) == 1;
        let objects = rows(output, "objects").filter_map(Outline::of_edges);
        let lines = rows(output, "lines").filter(is_first).filter_map(Outline::of_corners);
        Some(Self { width, height, outlines: objects.chain(lines).collect() })
    }
}

impl Outline {
    fn of_edges(object: &Value) -> Option<Self> {
        let edges = object["edges_pixels"].as_array()?;
        let edge = |at: usize| edges.get(at).and_then(Value::as_f64);
        let (left, top, right, bottom) = (edge(0)?, edge(1)?, edge(2)?, edge(3)?);
        let name = text(object, "label");
        let name = if name.is_empty() { "object" } else { name };
        let points = format!(
            "{left:.0},{top:.0} {right:.0},{top:.0} {right:.0},{bottom:.0} {left:.0},{bottom:.0}"
        );
        let score = score(object).map(|score| format!(" {score:.2}")).unwrap_or_default();
        Some(Self { points, name: format!("{name}{score}") })
    }

    fn of_corners(line: &Value) -> Option<Self> {
        let point =
            |corner: &Value| Some(format!("{:.0},{:.0}", corner[0].as_f64()?, corner[1].as_f64()?));
        let corners = line["corners_pixels"].as_array()?.iter().take(4);
        let points = corners.map(point).collect::<Option<Vec<_>>>()?;
        Some(Self { points: points.join(" "), name: text(line, "text").to_owned() })
    }
}

impl File {
    fn of(address: &str, file: &Value) -> Self {
        let (name, media_type) = (text(file, "name"), text(file, "media_type"));
        let kind = match media_type.split_once('/') {
            Some(("audio", _)) => "audio",
            Some(("image", "png" | "jpeg" | "webp" | "gif")) => "image",
            _ => "",
        };
        let bytes = file["bytes"].as_u64().unwrap_or_default();
        Self {
            address: format!("/v1{address}/files/{}", escaped(name)),
            name: name.to_owned(),
            size: format!("{media_type}, {}", size(bytes)),
            kind,
        }
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_of_result_has_a_line_of_its_own() {
        for (output, line) in [
            (json!({ "text": "Ever\ntried." }), "Ever tried."),
            (json!({ "text": " " }), "no text was found"),
            (
                json!({ "label": "png", "labels": [{ "label": "png", "score": 0.998 }] }),
                "png (1.00)",
            ),
            (json!({ "vector": [0.5, 0.5] }), "a vector of 2 numbers"),
            (json!({ "objects": [{ "label": "cat" }, { "label": "cat" }] }), "2 objects: cat"),
            (json!({ "tensors": [{}] }), "1 tensor"),
            (json!({ "audio_seconds": 2.25, "files": [{}] }), "2.2 s of sound"),
            (json!({ "files": [{}, {}] }), "2 files"),
            (json!(["what", "else"]), "the output of a.b"),
        ] {
            assert_eq!(summary("a.b", &output), line, "{output}");
        }
    }

    #[test]
    fn a_result_of_another_form_is_shown_as_far_as_it_can_be() {
        let odd = json!({
            "segments": [{ "start_seconds": "x" }, 7], "labels": [{ "score": "high" }, null], "vector": [null, "a"],
            "width_pixels": 4, "height_pixels": 3, "objects": [{ "edges_pixels": [1] }, { "edges_pixels": [0, 0, 4, 3] }],
            "files": [{ "name": "../../etc/passwd", "media_type": "audio/<x>" }], "tensors": [[]], "warnings": ["x"],
        });
        let shown = Shown::of("/jobs/1", &odd);
        assert_eq!((shown.segments.len(), shown.labels.len()), (2, 0));
        assert_eq!(shown.vector.as_deref(), Some("2 numbers: null, \"a\""));
        let outlines: Vec<&str> = shown
            .picture
            .iter()
            .flat_map(|one| &one.outlines)
            .map(|one| one.points.as_str())
            .collect();
        assert_eq!(outlines, ["0,0 4,0 4,3 0,3"]);
        assert_eq!(shown.files[0].address, "/v1/jobs/1/files/..%2F..%2Fetc%2Fpasswd");
        assert!(Shown::of("/jobs/1", &json!(null)).is_empty());
    }
}
