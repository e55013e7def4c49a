"""Small graphs with the signatures of voice models whose weights cannot be fetched.

usage: voice.py OUT_FOLDER

Each does arithmetic that a test can follow: a wrong name, layout, length or order shows in the numbers. They lie side by
side in the folder `voice`: the tests put them together to models, as their owners do.
"""

import sys
from pathlib import Path

import numpy as np

from graph import BOOL, FLOAT, WHOLE, Graph


def mean(graph, value, axes, keep=1):
    return graph.add("ReduceMean", value, axes=axes, keepdims=keep)


def openvoice_extract(folder, name, port):
    """The mean of each of the first 256 bins."""
    graph = Graph()
    means = mean(graph, port, [1], keep=0)
    ends = [graph.constant([value], np.int64) for value in (0, 256, 1)]
    graph.add("Slice", means, *ends, out="vector")
    graph.save(folder / name, [(port, FLOAT, [1, "frames", 513])], [("vector", FLOAT, [1, 256])])


def openvoice_convert(folder, name, ports, tau):
    """Each frame's mean times a tenth of how much louder the second voice is, 256 times; plus a tenth of tau."""
    spectrum, length, source, target = ports
    inputs = [(spectrum, FLOAT, [1, 513, "frames"]), (length, WHOLE, [1])]
    inputs += [(voice, FLOAT, [1, 256, 1]) for voice in (source, target)]
    inputs += [(tau, FLOAT, [1])] if tau else []
    graph = Graph()
    ratio = graph.add("Div", mean(graph, target, [0, 1, 2]), mean(graph, source, [0, 1, 2]))
    loud = graph.add("Mul", mean(graph, spectrum, [1]), ratio)
    loud = graph.add("Mul", loud, graph.constant(0.1))
    # A wrong length would show as a factor.
    frames = graph.add("Gather", graph.add("Shape", spectrum), graph.constant(2, np.int64))
    frames = graph.add("Cast", frames, to=FLOAT)
    told = graph.add("Cast", length, to=FLOAT)
    loud = graph.add("Mul", loud, graph.add("Div", told, frames))
    if tau:
        loud = graph.add("Add", loud, graph.add("Mul", tau, graph.constant(0.1)))
    column = graph.add("Unsqueeze", loud, graph.constant([3], np.int64))
    sound = graph.add("Expand", column, graph.constant([1, 1, 1, 256], np.int64))
    graph.add("Reshape", sound, graph.constant([1, 1, -1], np.int64), out="sound")
    graph.save(folder / name, inputs, [("sound", FLOAT, [1, 1, "samples"])])


def openvoice_samples(folder):
    """The export that makes its own spectrogram: a voice is how loud it is."""
    graph = Graph()
    loud = mean(graph, graph.add("Abs", graph.add("Transpose", "audio", perm=[1, 0])), [1])
    graph.add("Tile", loud, graph.constant([1, 256], np.int64), out="se")
    heard = [("audio", FLOAT, ["samples", "channels"])]
    graph.save(folder / "openvoice-samples-extract.onnx", heard, [("se", FLOAT, ["channels", 256])])
    inputs = [("src_audio", FLOAT, ["samples", "channels"])]
    inputs += [(voice, FLOAT, ["channels", 256]) for voice in ("src_se", "tgt_se")]
    graph = Graph()
    ratio = graph.add("Div", mean(graph, "tgt_se", [0, 1]), mean(graph, "src_se", [0, 1]))
    graph.add("Mul", "src_audio", ratio, out="audio")
    graph.save(folder / "openvoice-samples-convert.onnx", inputs, heard)


def melo(folder):
    """Each symbol is 64 samples of a hundredth of its number, stretched by length_scale; other inputs count for nothing."""
    rows = [(name, WHOLE, [1, "symbols"]) for name in ("x", "tone", "language")]
    ones = [(name, WHOLE, [1]) for name in ("x_lengths", "sid")]
    features = [("bert", FLOAT, [1, 1024, "symbols"]), ("ja_bert", FLOAT, [1, 768, "symbols"])]
    scales = [(name, FLOAT, []) for name in ("noise_scale", "length_scale", "noise_scale_w", "sdp_ratio")]
    graph = Graph()
    height = graph.add("Mul", graph.add("Cast", "x", to=FLOAT), graph.constant(0.01))
    stretched = graph.add("Cast", graph.add("Mul", "length_scale", graph.constant(64.0)), to=WHOLE)
    times = graph.add("Unsqueeze", stretched, graph.constant([0], np.int64))
    size = graph.add("Concat", graph.constant([1, 1], np.int64), times, axis=0)
    column = graph.add("Unsqueeze", height, graph.constant([2], np.int64))
    sound = graph.add("Tile", column, size)
    graph.add("Reshape", sound, graph.constant([1, 1, -1], np.int64), out="audio")
    graph.save(folder / "melo.onnx", rows + ones + features + scales, [("audio", FLOAT, [1, 1, "samples"])])


def whisper(folder):
    """An encoder that takes the means of the mel filters, and a decoder that counts: after each token comes the next one."""
    width, layers, heads, vocabulary = 8, 1, 2, 51865
    graph = Graph()
    pooled = graph.add("AveragePool", "input_features", kernel_shape=[2], strides=[2])
    first = [graph.constant([value], np.int64) for value in (0, width, 1)]
    graph.add("Transpose", graph.add("Slice", pooled, *first), perm=[0, 2, 1], out="last_hidden_state")
    heard = [("input_features", FLOAT, ["batch", 80, 3000])]
    graph.save(folder / "whisper-encoder.onnx", heard, [("last_hidden_state", FLOAT, ["batch", 1500, width])])
    cache = ["batch", heads, "past", width // heads]
    parts = [f"{layer}.{half}.{kind}" for layer in range(layers) for half in ("decoder", "encoder") for kind in ("key", "value")]
    inputs = [("input_ids", WHOLE, ["batch", "tokens"]), ("encoder_hidden_states", FLOAT, ["batch", "frames", width])]
    inputs += [(f"past_key_values.{part}", FLOAT, cache) for part in parts] + [("use_cache_branch", BOOL, [1])]
    graph = Graph()
    # 50257 ends the text; a count beyond 6 leads there.
    step = graph.add("Add", "input_ids", graph.constant(1, np.int64))
    prompt = graph.add("GreaterOrEqual", "input_ids", graph.constant(50257, np.int64))
    done = graph.add("Greater", step, graph.constant(6, np.int64))
    step = graph.add("Where", done, graph.constant(50257, np.int64), step)
    step = graph.add("Where", prompt, graph.constant(3, np.int64), step)
    ends = graph.constant([0.0, 1.0])
    graph.add("OneHot", step, graph.constant(vocabulary, np.int64), ends, out="logits")
    shape = graph.add("Shape", "input_ids")
    row = graph.add("Slice", shape, *[graph.constant([value], np.int64) for value in (1, 2, 0)])
    size = graph.add("Concat", *[graph.constant([n], np.int64) for n in (1, heads)], row, graph.constant([width // heads], np.int64), axis=0)
    news = graph.add("ConstantOfShape", size)
    for part in parts:
        if ".decoder." in part:
            graph.add("Concat", f"past_key_values.{part}", news, axis=2, out=f"present.{part}")
        else:
            graph.add("Identity", f"past_key_values.{part}", out=f"present.{part}")
    outputs = [("logits", FLOAT, ["batch", "tokens", vocabulary])]
    outputs += [(f"present.{part}", FLOAT, cache[:2] + ["all", width // heads]) for part in parts]
    graph.save(folder / "whisper-decoder.onnx", inputs, outputs)


def main():
    folder = Path(sys.argv[1]) / "voice"
    openvoice_extract(folder, "openvoice-tone-extract.onnx", "input")
    openvoice_convert(folder, "openvoice-tone-convert.onnx", ("audio", "audio_length", "src_tone", "dest_tone"), "tau")
    openvoice_extract(folder, "openvoice-spectrogram-extract.onnx", "spec")
    openvoice_convert(folder, "openvoice-spectrogram-convert.onnx", ("spec", "spec_lengths", "sid_src", "sid_tgt"), None)
    openvoice_samples(folder)
    melo(folder)
    whisper(folder)


if __name__ == "__main__":
    main()
