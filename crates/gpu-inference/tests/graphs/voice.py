"""Small graphs with the signatures of voice models whose weights lie in no package registry.

Each does arithmetic that a test can follow: a wrong name, layout, length or order shows in the numbers.
Usage: voice.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INTEGER, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
OPSET = 17
IR = 8


class Graph:
    """Nodes in order; a constant is made where it is needed."""

    def __init__(self, inputs):
        self.inputs = [helper.make_tensor_value_info(*port) for port in inputs]
        self.nodes, self.constants = [], []

    def constant(self, value, kind=np.float32):
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def node(self, operator, *inputs, name=None, **attributes):
        name = name or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def mean(self, value, axes, keep=1):
        return self.node("ReduceMean", value, axes=axes, keepdims=keep)

    def save(self, path, outputs):
        outputs = [helper.make_tensor_value_info(*port) for port in outputs]
        graph = helper.make_graph(self.nodes, path.stem, self.inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString())


def openvoice_extract(folder, name, port):
    """The mean of each of the first 256 bins."""
    graph = Graph([(port, FLOAT, [1, "frames", 513])])
    mean = graph.mean(port, [1], keep=0)
    ends = [graph.constant([value], np.int64) for value in (0, 256, 1)]
    graph.node("Slice", mean, *ends, name="vector")
    graph.save(folder / name, [("vector", FLOAT, [1, 256])])


def openvoice_convert(folder, name, ports, tau):
    """Each frame's mean times a tenth of how much louder the second voice is, 256 times; plus a tenth of tau."""
    spectrum, length, source, target = ports
    inputs = [(spectrum, FLOAT, [1, 513, "frames"]), (length, INTEGER, [1])]
    inputs += [(voice, FLOAT, [1, 256, 1]) for voice in (source, target)]
    graph = Graph(inputs + ([(tau, FLOAT, [1])] if tau else []))
    ratio = graph.node("Div", graph.mean(target, [0, 1, 2]), graph.mean(source, [0, 1, 2]))
    loud = graph.node("Mul", graph.mean(spectrum, [1]), ratio)
    loud = graph.node("Mul", loud, graph.constant(0.1))
    # A wrong length would show as a factor.
    frames = graph.node("Gather", graph.node("Shape", spectrum), graph.constant(2, np.int64))
    frames = graph.node("Cast", frames, to=FLOAT)
    told = graph.node("Cast", length, to=FLOAT)
    loud = graph.node("Mul", loud, graph.node("Div", told, frames))
    if tau:
        loud = graph.node("Add", loud, graph.node("Mul", tau, graph.constant(0.1)))
    column = graph.node("Unsqueeze", loud, graph.constant([3], np.int64))
    sound = graph.node("Expand", column, graph.constant([1, 1, 1, 256], np.int64))
    graph.node("Reshape", sound, graph.constant([1, 1, -1], np.int64), name="sound")
    graph.save(folder / name, [("sound", FLOAT, [1, 1, "samples"])])


def openvoice_samples(folder):
    """The export that makes its own spectrogram: a voice is how loud it is."""
    graph = Graph([("audio", FLOAT, ["samples", "channels"])])
    loud = graph.mean(graph.node("Abs", graph.node("Transpose", "audio", perm=[1, 0])), [1])
    graph.node("Tile", loud, graph.constant([1, 256], np.int64), name="se")
    graph.save(folder / "openvoice-samples-extract.onnx", [("se", FLOAT, ["channels", 256])])
    inputs = [("src_audio", FLOAT, ["samples", "channels"])]
    inputs += [(voice, FLOAT, ["channels", 256]) for voice in ("src_se", "tgt_se")]
    graph = Graph(inputs)
    ratio = graph.node("Div", graph.mean("tgt_se", [0, 1]), graph.mean("src_se", [0, 1]))
    graph.node("Mul", "src_audio", ratio, name="audio")
    graph.save(folder / "openvoice-samples-convert.onnx", [("audio", FLOAT, ["samples", "channels"])])


def melo(folder):
    """Each symbol is 64 samples of a hundredth of its number, stretched by length_scale; other inputs count for nothing."""
    rows = [(name, INTEGER, [1, "symbols"]) for name in ("x", "tone", "language")]
    ones = [(name, INTEGER, [1]) for name in ("x_lengths", "sid")]
    features = [("bert", FLOAT, [1, 1024, "symbols"]), ("ja_bert", FLOAT, [1, 768, "symbols"])]
    scales = [(name, FLOAT, []) for name in ("noise_scale", "length_scale", "noise_scale_w", "sdp_ratio")]
    graph = Graph(rows + ones + features + scales)
    height = graph.node("Mul", graph.node("Cast", "x", to=FLOAT), graph.constant(0.01))
    stretched = graph.node("Cast", graph.node("Mul", "length_scale", graph.constant(64.0)), to=INTEGER)
    times = graph.node("Unsqueeze", stretched, graph.constant([0], np.int64))
    size = graph.node("Concat", graph.constant([1, 1], np.int64), times, axis=0)
    column = graph.node("Unsqueeze", height, graph.constant([2], np.int64))
    sound = graph.node("Tile", column, size)
    graph.node("Reshape", sound, graph.constant([1, 1, -1], np.int64), name="audio")
    graph.save(folder / "melo.onnx", [("audio", FLOAT, [1, 1, "samples"])])


def whisper(folder):
    """An encoder that takes the means of the mel filters, and a decoder that counts: after each token comes the next one."""
    width, layers, heads, vocabulary = 8, 1, 2, 51865
    graph = Graph([("input_features", FLOAT, ["batch", 80, 3000])])
    pooled = graph.node("AveragePool", "input_features", kernel_shape=[2], strides=[2])
    first = [graph.constant([value], np.int64) for value in (0, width, 1)]
    graph.node("Transpose", graph.node("Slice", pooled, *first), perm=[0, 2, 1], name="last_hidden_state")
    graph.save(folder / "whisper-encoder.onnx", [("last_hidden_state", FLOAT, ["batch", 1500, width])])
    cache = ["batch", heads, "past", width // heads]
    parts = [f"{layer}.{half}.{kind}" for layer in range(layers) for half in ("decoder", "encoder") for kind in ("key", "value")]
    inputs = [("input_ids", INTEGER, ["batch", "tokens"]), ("encoder_hidden_states", FLOAT, ["batch", "frames", width])]
    inputs += [(f"past_key_values.{part}", FLOAT, cache) for part in parts] + [("use_cache_branch", BOOL, [1])]
    graph = Graph(inputs)
    # 50257 ends the text; a count beyond 6 leads there.
    step = graph.node("Add", "input_ids", graph.constant(1, np.int64))
    prompt = graph.node("GreaterOrEqual", "input_ids", graph.constant(50257, np.int64))
    done = graph.node("Greater", step, graph.constant(6, np.int64))
    step = graph.node("Where", done, graph.constant(50257, np.int64), step)
    step = graph.node("Where", prompt, graph.constant(3, np.int64), step)
    ends = graph.constant([0.0, 1.0])
    graph.node("OneHot", step, graph.constant(vocabulary, np.int64), ends, name="logits")
    shape = graph.node("Shape", "input_ids")
    row = graph.node("Slice", shape, *[graph.constant([value], np.int64) for value in (1, 2, 0)])
    size = graph.node("Concat", *[graph.constant([n], np.int64) for n in (1, heads)], row, graph.constant([width // heads], np.int64), axis=0)
    news = graph.node("ConstantOfShape", size, value=helper.make_tensor("zero", FLOAT, [1], [0.0]))
    for part in parts:
        if ".decoder." in part:
            graph.node("Concat", f"past_key_values.{part}", news, axis=2, name=f"present.{part}")
        else:
            graph.node("Identity", f"past_key_values.{part}", name=f"present.{part}")
    outputs = [("logits", FLOAT, ["batch", "tokens", vocabulary])]
    graph.save(folder / "whisper-decoder.onnx", outputs + [(f"present.{part}", FLOAT, cache[:2] + ["all", width // heads]) for part in parts])


def main():
    folder = Path(sys.argv[1])
    openvoice_extract(folder, "openvoice-tone-extract.onnx", "input")
    openvoice_convert(folder, "openvoice-tone-convert.onnx", ("audio", "audio_length", "src_tone", "dest_tone"), "tau")
    openvoice_extract(folder, "openvoice-spectrogram-extract.onnx", "spec")
    openvoice_convert(folder, "openvoice-spectrogram-convert.onnx", ("spec", "spec_lengths", "sid_src", "sid_tgt"), None)
    openvoice_samples(folder)
    melo(folder)
    whisper(folder)


if __name__ == "__main__":
    main()
