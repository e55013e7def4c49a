//! The documents of the vision and text tasks, and of `onnx.run`.

use gpu_inference::{
    Classification, Detection, Detections, Embedding, Label, Segmented, Segments, TensorSummary,
};
use serde_json::Value;

use gpuctl_control::wire::output::{
    ClassificationDocument, DetectionDocument, DetectionsDocument, EmbeddingDocument,
    LabelDocument, SegmentedDocument, SegmentsDocument, TensorDocument, TensorsDocument, to_value,
};

pub(super) fn embedding(embedding: &Embedding) -> Value {
    let Embedding { values, tokens, truncated } = embedding.clone();
    to_value(&EmbeddingDocument { vector: values, tokens, truncated })
}

pub(super) fn classification(found: &Classification) -> Value {
    let label = |label: &Label| LabelDocument { label: label.name.clone(), score: label.score };
    to_value(&ClassificationDocument {
        label: found.label.clone(),
        media_type: found.media_type.clone(),
        labels: found.labels.iter().map(label).collect(),
        truncated: found.truncated,
    })
}

pub(super) fn detections(found: &Detections) -> Value {
    let object = |object: &Detection| DetectionDocument {
        label: object.label.clone(),
        score: object.score,
        edges_pixels: object.edges,
        points_pixels: object.points.clone(),
    };
    to_value(&DetectionsDocument {
        width_pixels: found.width,
        height_pixels: found.height,
        objects: found.objects.iter().map(object).collect(),
    })
}

pub(super) fn segments(found: &Segments) -> Value {
    let object = |object: &Segmented| SegmentedDocument {
        file: object.file.clone(),
        label: object.label.clone(),
        score: object.score,
        edges_pixels: object.edges,
        pixels: object.pixels,
    };
    to_value(&SegmentsDocument {
        width_pixels: found.width,
        height_pixels: found.height,
        objects: found.objects.iter().map(object).collect(),
    })
}

pub(super) fn tensors(found: &[TensorSummary]) -> Value {
    let tensor = |tensor: &TensorSummary| TensorDocument {
        name: tensor.name.clone(),
        dtype: tensor.element_type.to_owned(),
        shape: tensor.shape.clone(),
        data: tensor.values.clone(),
        file: tensor.file.clone(),
    };
    to_value(&TensorsDocument { tensors: found.iter().map(tensor).collect() })
}
