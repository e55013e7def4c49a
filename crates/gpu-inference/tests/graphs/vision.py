"""Small graphs with the signatures of vision and text models whose weights cannot be fetched, each in a model's folder.

usage: vision.py OUT_FOLDER

What they compute is simple enough to be worked out by hand, so that a test sees whether the pipeline fed them rightly:
a picture's mean colour, the sum of words' vectors, the bright part of a picture. Nothing here is a real model.
"""

import hashlib
import json
import math
import sys
from pathlib import Path

import numpy as np

from graph import BOOL, FLOAT, HALF, WHOLE, Graph


def main():
    out = Path(sys.argv[1])
    siglip(out, "siglip-small", FLOAT)
    siglip(out, "siglip-small-half", HALF)
    sam2(out)
    sam3(out)
    for layout in ("columns", "rows", "finished"):
        yolo(out, layout)
    sentences(out)
    text_classifier(out)


def manifest(folder, family, task, files, settings=""):
    """A model.toml as a user would write it, with the files' sizes and hashes."""
    lines = [f'name = "{folder.name}"', f'family = "{family}"', f'task = "{task}"', 'licence = "none: a test"']
    lines += ['precision = "fp32"', "max_batch = 4", "memory_mib = 16"]
    if settings:
        lines += ["[settings]", settings]
    for role, path in files.items():
        content = (folder / path).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        lines += ["[[file]]", f'role = "{role}"', f'path = "{path}"', f'sha256 = "{digest}"']
        lines += [f"size_bytes = {len(content)}"]
    (folder / "model.toml").write_text("\n".join(lines) + "\n")


def tokenizer(path, words, first=None, last=None):
    """A tokenizer.json that knows whole words only."""
    vocabulary = {word: number for number, word in enumerate(words)}
    special = [token for token in (first, last) if token]
    frame = [{"SpecialToken": {"id": token, "type_id": 0}} for token in special]
    middle = [{"Sequence": {"id": "A", "type_id": 0}}]
    single = (frame[:1] if first else []) + middle + (frame[-1:] if last else [])
    described = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [
            {"id": vocabulary[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
            for token in special
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {token: {"id": token, "ids": [vocabulary[token]], "tokens": [token]} for token in special},
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "unknown"},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(described))


def siglip(out, name, kind):
    """The picture's mean colour, and the sum of its words' colours."""
    folder = out / name
    picture = Graph()
    picture.add("ReduceMean", "pixel_values", out="pooler_output", axes=[2, 3], keepdims=0)
    picture.add("ReduceMean", "pixel_values", out="last_hidden_state", axes=[3], keepdims=0)
    outputs = [("last_hidden_state", kind, ["batch", 3, 32]), ("pooler_output", kind, ["batch", 3])]
    picture.save(folder / "vision_model.onnx", [("pixel_values", kind, ["batch", 3, 32, 32])], outputs)
    words = ["pad", "end", "begin", "unknown", "red", "green", "blue", "a"]
    colours = np.zeros((len(words), 3), np.float32)
    colours[4], colours[5], colours[6] = [1, -1, -1], [-1, 1, -1], [-1, -1, 1]
    # Padding that is not 0 and a missing end would be seen at once.
    colours[2] = [100, 100, 100]
    text = Graph()
    looked_up = text.add("Gather", text.constant(colours), "input_ids")
    text.add("ReduceSum", looked_up, text.constant([1], np.int64), out="pooler_output", keepdims=0)
    text.save(folder / "text_model.onnx", [("input_ids", WHOLE, ["batch", 64])], [("pooler_output", FLOAT, ["batch", 3])])
    tokenizer(folder / "tokenizer.json", words, first="begin", last="end")
    files = {"vision": "vision_model.onnx", "text": "text_model.onnx", "tokenizer": "tokenizer.json"}
    settings = f'logit_scale = {math.log(10)}\nlogit_bias = -5.0\ntemplate = "a {{}}"'
    manifest(folder, "siglip", "vision.embed", files, settings)


def sam2(out):
    """Three masks: dark, bright, dark. The second is as sure as the prompts lie right, the third as their kind is high."""
    folder = out / "sam2-small"
    encoder = Graph()
    grey = encoder.add("ReduceMean", "image", axes=[1], keepdims=1)
    encoder.add("AveragePool", grey, out="high_res_feats_0", kernel_shape=[4, 4], strides=[4, 4])
    encoder.add("AveragePool", grey, out="high_res_feats_1", kernel_shape=[8, 8], strides=[8, 8])
    encoder.add("AveragePool", grey, out="image_embed", kernel_shape=[16, 16], strides=[16, 16])
    features = [("high_res_feats_0", FLOAT, [1, 1, 256, 256]), ("high_res_feats_1", FLOAT, [1, 1, 128, 128]), ("image_embed", FLOAT, [1, 1, 64, 64])]
    encoder.save(folder / "encoder.onnx", [("image", FLOAT, [1, 3, 1024, 1024])], features)
    decoder = Graph()
    dark = decoder.add("Neg", "high_res_feats_0")
    # What is not used would be dropped from the graph: each input adds nothing.
    unused = ("image_embed", "high_res_feats_1", "mask_input", "has_mask_input")
    nothing = [decoder.add("Mul", decoder.add("ReduceMean", name, keepdims=0), decoder.constant(0.0)) for name in unused]
    bright = decoder.add("Add", "high_res_feats_0", decoder.add("Sum", *nothing))
    decoder.add("Concat", dark, bright, dark, out="masks", axis=1)
    across = decoder.add("Gather", "point_coords", decoder.constant([0], np.int64), axis=2)
    right = decoder.add("Div", decoder.add("ReduceMean", across, axes=[1, 2], keepdims=0), decoder.constant([1024.0]))
    kind = decoder.add("Div", decoder.add("ReduceMax", "point_labels", axes=[1], keepdims=0), decoder.constant([10.0]))
    column = decoder.constant([1], np.int64)
    sure = [decoder.add("Unsqueeze", value, column) for value in (decoder.constant([0.05]), right, kind)]
    decoder.add("Concat", *sure, out="iou_predictions", axis=1)
    prompts = [("point_coords", FLOAT, ["things", "points", 2]), ("point_labels", FLOAT, ["things", "points"])]
    earlier = [("mask_input", FLOAT, ["things", 1, 256, 256]), ("has_mask_input", FLOAT, [1])]
    outputs = [("masks", FLOAT, [1, 3, 256, 256]), ("iou_predictions", FLOAT, ["things", 3])]
    decoder.save(folder / "decoder.onnx", features[2:] + features[:2] + prompts + earlier, outputs)
    manifest(folder, "sam2", "vision.segment", {"encoder": "encoder.onnx", "decoder": "decoder.onnx"})


def sam3(out):
    """Two masks: bright and dark. The first is as sure as the phrase is long, the second as the box lies right."""
    folder = out / "sam3-small"
    encoder = Graph()
    grey = encoder.add("ReduceMean", "images", axes=[1], keepdims=1)
    features = []
    for name, side in (("fpn_feat_0", 288), ("fpn_feat_1", 144), ("fpn_feat_2", 72), ("fpn_pos_2", 72)):
        sizes = encoder.constant([1, 1, side, side], np.int64)
        encoder.add("Resize", grey, "", "", sizes, out=name, mode="linear")
        features.append((name, FLOAT, [1, 1, side, side]))
    encoder.save(folder / "vision-encoder.onnx", [("images", FLOAT, [1, 3, 1008, 1008])], features)
    text = Graph()
    text.add("Cast", "attention_mask", out="text_mask", to=BOOL)
    text.add("Unsqueeze", text.add("Cast", "input_ids", to=FLOAT), text.constant([2], np.int64), out="text_features")
    phrase = [("text_features", FLOAT, ["batch", 32, 1]), ("text_mask", BOOL, ["batch", 32])]
    text.save(folder / "text-encoder.onnx", [("input_ids", WHOLE, ["batch", 32]), ("attention_mask", WHOLE, ["batch", 32])], phrase)
    decoder = Graph()
    unused = ("fpn_feat_1", "fpn_feat_2", "fpn_pos_2", "text_features")
    nothing = [decoder.add("Mul", decoder.add("ReduceMean", name, keepdims=0), decoder.constant(0.0)) for name in unused]
    bright = decoder.add("Add", "fpn_feat_0", decoder.add("Sum", *nothing))
    decoder.add("Concat", bright, decoder.add("Neg", bright), out="pred_masks", axis=1)
    decoder.add("Identity", decoder.constant([[[0.5, 0, 1, 1], [0, 0, 0.5, 1]]]), out="pred_boxes")
    length = decoder.add("ReduceSum", decoder.add("Cast", "text_mask", to=FLOAT), decoder.constant([1], np.int64), keepdims=1)
    corner = decoder.add("Slice", "input_boxes", decoder.constant([0, 0], np.int64), decoder.constant([1, 1], np.int64), decoder.constant([1, 2], np.int64))
    right = decoder.add("Mul", decoder.add("Squeeze", corner, decoder.constant([1], np.int64)), decoder.constant([[10.0]]))
    logits = decoder.add("Concat", length, right, out="both", axis=1)
    decoder.add("Sub", logits, decoder.constant([[3.0, 5.0]]), out="pred_logits")
    kinds = decoder.add("ReduceMax", decoder.add("Cast", "input_boxes_labels", to=FLOAT), axes=[1], keepdims=1)
    decoder.add("Add", kinds, decoder.constant([[20.0]]), out="presence_logits")
    boxes = [("input_boxes", FLOAT, [1, "boxes", 4]), ("input_boxes_labels", WHOLE, [1, "boxes"])]
    outputs = [("pred_masks", FLOAT, [1, 2, 288, 288]), ("pred_boxes", FLOAT, [1, 2, 4]), ("pred_logits", FLOAT, [1, 2]), ("presence_logits", FLOAT, [1, 1])]
    decoder.save(folder / "decoder.onnx", features + phrase + boxes, outputs)
    words = ["pad", "end", "begin", "unknown", "visual", "bright", "thing"]
    tokenizer(folder / "tokenizer.json", words, first="begin", last="end")
    files = {"encoder": "vision-encoder.onnx", "text": "text-encoder.onnx", "decoder": "decoder.onnx", "tokenizer": "tokenizer.json"}
    manifest(folder, "sam3", "vision.segment", files, "pad_id = 1")


def yolo(out, layout):
    """Two boxes on one thing and one on another, as sure as the picture's brightest pixel is bright."""
    folder = out / f"yolo-{layout}"
    # Middle x, y, width, height; scores of `cat` and `dog`.
    found = np.array([[32, 32, 32, 16, 0.9, 0.1], [33, 32, 32, 16, 0.8, 0.1], [8, 24, 16, 8, 0.1, 0.6]], np.float32)
    graph = Graph()
    brightest = graph.add("ReduceMax", "images", axes=[1, 2, 3], keepdims=1)
    brightest = graph.add("Squeeze", brightest, graph.constant([3], np.int64))
    if layout == "finished":
        edges = [[x - w / 2, y - h / 2, x + w / 2, y + h / 2, max(cat, dog), int(dog > cat)] for x, y, w, h, cat, dog in found[[0, 2]].tolist()]
        answer, scored, side = np.array([edges], np.float32), [0, 0, 0, 0, 1, 0], 6
    elif layout == "rows":
        boxes = np.concatenate([found[:, :4], np.full((3, 1), 0.5, np.float32), found[:, 4:]], 1)
        padding = np.zeros((1, 9, 7), np.float32)
        answer, scored, side = np.concatenate([boxes[None], padding], 1), [0, 0, 0, 0, 0, 1, 1], 7
    else:
        columns = np.zeros((1, 6, 12), np.float32)
        columns[0, :, :3] = found.T
        answer, scored, side = columns, [0, 0, 0, 0, 1, 1], None
    scored = np.array(scored, np.float32)
    scored = scored.reshape(1, -1, 1) if side is None else scored.reshape(1, 1, -1)
    # answer * (scored * brightest + (1 - scored))
    factor = graph.add("Add", graph.add("Mul", graph.constant(scored), brightest), graph.constant(1 - scored))
    graph.add("Mul", graph.constant(answer), factor, out="output0")
    shape = list(answer.shape)
    names = {"names": "{0: 'cat', 1: 'dog'}"}
    graph.save(folder / "model.onnx", [("images", FLOAT, [1, 3, 64, 64])], [("output0", FLOAT, shape)], names)
    manifest(folder, "yolo", "vision.detect", {"detect": "model.onnx"})


def sentences(out):
    """Each word is a vector; the weights lie beside the graph."""
    folder = out / "sentences-small"
    words = ["begin", "pad", "end", "unknown", "query", "passage", ":", "up", "down"]
    vectors = np.zeros((len(words), 4), np.float32)
    vectors[1] = 1000
    vectors[4], vectors[5], vectors[7], vectors[8] = [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]
    graph = Graph()
    mask = graph.add("Mul", graph.add("Cast", "attention_mask", to=FLOAT), graph.constant(0.0))
    mask = graph.add("Unsqueeze", mask, graph.constant([2], np.int64))
    graph.add("Add", graph.add("Gather", graph.constant(vectors), "input_ids"), mask, out="last_hidden_state")
    inputs = [("input_ids", WHOLE, ["batch", "length"]), ("attention_mask", WHOLE, ["batch", "length"])]
    graph.save(folder / "model.onnx", inputs, [("last_hidden_state", FLOAT, ["batch", "length", 4])], weights="model.onnx_data")
    tokenizer(folder / "tokenizer.json", words, first="begin", last="end")
    files = {"encoder": "model.onnx", "encoder.weights": "model.onnx_data", "tokenizer": "tokenizer.json"}
    settings = 'pad_id = 1\ntokens_max = 8\nquery_prefix = "query: "\npassage_prefix = "passage: "'
    manifest(folder, "sentence-encoder", "text.embed", files, settings)


def text_classifier(out):
    """Good and bad words, counted."""
    words = ["pad", "end", "begin", "unknown", "good", "bad"]
    weights = np.zeros((len(words), 2), np.float32)
    weights[4], weights[5] = [0, 2], [2, 0]
    weights[0] = [50, 0]
    for name, problem in (("classifier-one", None), ("classifier-any", "multi_label_classification")):
        folder = out / name
        graph = Graph()
        mask = graph.add("Unsqueeze", graph.add("Cast", "attention_mask", to=FLOAT), graph.constant([2], np.int64))
        counted = graph.add("Mul", graph.add("Gather", graph.constant(weights), "input_ids"), mask)
        graph.add("ReduceSum", counted, graph.constant([1], np.int64), out="logits", keepdims=0)
        inputs = [("input_ids", WHOLE, ["batch", "length"]), ("attention_mask", WHOLE, ["batch", "length"])]
        graph.save(folder / "model.onnx", inputs, [("logits", FLOAT, ["batch", 2])])
        tokenizer(folder / "tokenizer.json", words, first="begin", last="end")
        config = {"id2label": {"1": "POSITIVE", "0": "NEGATIVE"}, "problem_type": problem, "model_type": "distilbert"}
        (folder / "config.json").write_text(json.dumps(config))
        files = {"classifier": "model.onnx", "config": "config.json", "tokenizer": "tokenizer.json"}
        manifest(folder, "text-classifier", "text.classify", files, "tokens_max = 6")


if __name__ == "__main__":
    main()
