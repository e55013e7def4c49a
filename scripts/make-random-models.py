#!/usr/bin/env python3
"""Make graphs of real models' sizes with random weights, in 32 and 16 bits, into the models' folder.

Why it exists: to measure a GPU with graphs of real size where the real weights cannot be fetched. Their results mean nothing.
- vit-b16: a picture tower of SigLIP's shape (ViT-B/16 at 224)
- converter: OpenVoice V2's tone colour converter (VITS: a posterior encoder of 16 layers, a flow of 4 blocks there and back, HiFi-GAN)
- pictures: vit-b16 as a model of `vision.embed`, beside a text tower that is next to nothing
- sentences: MiniLM's shape (6 layers of 384) as a model of `text.embed`, with a small vocabulary
- tiny: two products, 0.3 million weights
`gpuctl models bench vit-b16-fp32 vit-b16-fp16 converter-fp32 converter-fp16` measures graphs, `scripts/bench-gpu.sh` workers. Weights are never
committed.

Needs the packages of crates/gpu-inference/tests/graphs/requirements.txt; installs them into the cache if they are missing.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from gpuctl_cache import cache_folder
from python_packages import use_graph_packages


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL", help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=cache_folder() / "models", help="default: %(default)s")
    arguments = parser.parse_args()
    use_graph_packages("onnx")
    for unknown in set(arguments.models) - set(MODELS):
        parser.error(f"there is no {unknown}, there is {', '.join(MODELS)}")
    for name in arguments.models:
        for half in (False, True):
            graph = Graph(half)
            MODELS[name](graph)
            graph.save(arguments.folder, name)


class Graph:
    """A graph that grows node by node, and counts its multiplications for each second of sound or for each picture."""

    def __init__(self, half):
        import numpy as np
        from onnx import TensorProto

        self.kind, self.element = (np.float16, TensorProto.FLOAT16) if half else (np.float32, TensorProto.FLOAT)
        self.precision = "fp16" if half else "fp32"
        self.random = np.random.default_rng(0)
        self.nodes, self.constants, self.inputs, self.outputs = [], [], [], []
        self.multiplications, self.per = 0.0, "a picture"
        self.family, self.task, self.role = "onnx", "onnx.run", "graph"
        # By role, the name and content of files beside the graph.
        self.beside = {}

    def constant(self, values, kind=None):
        import numpy as np
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values).astype(kind or self.kind), name))
        return name

    def weights(self, *shape):
        import numpy as np

        return self.constant(self.random.standard_normal(shape, np.float32) * 0.02)

    def zeros(self, length):
        return self.constant([0.0] * length)

    def add(self, operator, *inputs, out=None, **attributes):
        from onnx import helper

        out = out or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [out], **attributes))
        return out

    def linear(self, value, inner, outer, rows=1):
        self.multiplications += rows * inner * outer
        return self.add("Add", self.add("MatMul", value, self.weights(inner, outer)), self.zeros(outer))

    def norm(self, value, width, epsilon=1e-6):
        return self.add("LayerNormalization", value, self.constant([1.0] * width), self.zeros(width), axis=-1, epsilon=epsilon)

    def takes(self, name, shape, element=None):
        from onnx import helper

        self.inputs.append(helper.make_tensor_value_info(name, element or self.element, shape))
        return name

    def answers(self, name, shape):
        from onnx import helper

        self.outputs.append(helper.make_tensor_value_info(name, self.element, shape))

    def bytes(self):
        from onnx import helper

        graph = helper.make_graph(self.nodes, "random", self.inputs, self.outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()

    def save(self, folder, name):
        folder = folder / f"{name}-{self.precision}"
        folder.mkdir(parents=True, exist_ok=True)
        files = {self.role: ("model.onnx", self.bytes()), **self.beside}
        for path, content in files.values():
            (folder / path).write_bytes(content)
        manifest = f"""# Random weights in a real model's shape: for measuring only. Made by scripts/make-random-models.py.
name = "{folder.name}"
family = "{self.family}"
task = "{self.task}"
licence = "none: random numbers"
precision = "{self.precision}"
max_batch = 64
memory_mib = 1000
"""
        manifest += "".join(entry(role, path, content) for role, (path, content) in files.items())
        (folder / "model.toml").write_text(manifest, encoding="utf-8")
        size = sum(len(content) for _, content in files.values()) / 1e6
        print(f"made {folder}: {size:.0f} MB, {2 * self.multiplications / 1e9:.2f} GFLOP {self.per}")


def entry(role, path, content):
    """A file's part of a manifest."""
    return f"""
[[file]]
role = "{role}"
path = "{path}"
sha256 = "{hashlib.sha256(content).hexdigest()}"
size_bytes = {len(content)}
origin = {{ url = "file:///made-by/scripts/make-random-models.py" }}
"""


def vit(graph):
    width, heads, hidden, side, patch, layers = 768, 12, 3072, 224, 16, 12
    tokens = (side // patch) ** 2

    def linear(value, inner, outer):
        return graph.linear(value, inner, outer, rows=tokens)

    def norm(value):
        return graph.norm(value, width)

    def split(value, axes):
        shape = graph.constant([0, 0, heads, width // heads], "int64")
        return graph.add("Transpose", graph.add("Reshape", value, shape), perm=axes)

    def attention(value):
        query, key = split(linear(value, width, width), [0, 2, 1, 3]), split(linear(value, width, width), [0, 2, 3, 1])
        values = split(linear(value, width, width), [0, 2, 1, 3])
        graph.multiplications += 2 * tokens * tokens * width
        scale = graph.constant((width // heads) ** -0.5)
        scores = graph.add("Softmax", graph.add("Mul", graph.add("MatMul", query, key), scale), axis=-1)
        joined = graph.add("Transpose", graph.add("MatMul", scores, values), perm=[0, 2, 1, 3])
        return linear(graph.add("Reshape", joined, graph.constant([0, 0, width], "int64")), width, width)

    def feed_forward(value):
        inner = linear(value, width, hidden)
        # Gelu as SigLIP has it: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).
        cube = graph.add("Mul", graph.add("Mul", inner, inner), inner)
        bent = graph.add("Add", inner, graph.add("Mul", cube, graph.constant(0.044715)))
        gate = graph.add("Add", graph.add("Tanh", graph.add("Mul", bent, graph.constant(0.7978845608))), graph.constant(1.0))
        return linear(graph.add("Mul", graph.add("Mul", inner, graph.constant(0.5)), gate), hidden, width)

    pixels = graph.takes("pixel_values", ["batch", 3, side, side])
    graph.multiplications += tokens * 3 * patch * patch * width
    value = graph.add("Conv", pixels, graph.weights(width, 3, patch, patch), graph.zeros(width), strides=[patch, patch])
    value = graph.add("Transpose", graph.add("Reshape", value, graph.constant([0, 0, -1], "int64")), perm=[0, 2, 1])
    value = graph.add("Add", value, graph.weights(1, tokens, width))
    for _ in range(layers):
        value = graph.add("Add", value, attention(norm(value)))
        value = graph.add("Add", value, feed_forward(norm(value)))
    graph.add("ReduceMean", norm(value), out="pooler_output", axes=[1], keepdims=0)
    graph.answers("pooler_output", ["batch", width])


def converter(graph):
    """The sizes are those of OpenVoice V2's published configuration; 22,050 samples and 86.1 frames a second."""
    bins, width, voice, frames_a_second = 513, 192, 256, 22050 / 256

    def conv(value, inner, outer, kernel=1, dilation=1, rate=frames_a_second):
        graph.multiplications += inner * outer * kernel * rate
        side = dilation * (kernel - 1) // 2
        return graph.add("Conv", value, graph.weights(outer, inner, kernel), graph.zeros(outer), pads=[side, side], dilations=[dilation])

    def part(value, begin, end):
        return graph.add("Slice", value, *(graph.constant([number], "int64") for number in (begin, end, 1)))

    def wavenet(value, layers, speaker):
        conditions = conv(speaker, voice, 2 * width * layers, rate=0) if speaker else None
        total = None
        for layer in range(layers):
            inner = conv(value, width, 2 * width, kernel=5)
            if conditions:
                inner = graph.add("Add", inner, part(conditions, 2 * width * layer, 2 * width * (layer + 1)))
            gated = graph.add("Mul", graph.add("Tanh", part(inner, 0, width)), graph.add("Sigmoid", part(inner, width, 2 * width)))
            last = layer == layers - 1
            both = conv(gated, width, width if last else 2 * width)
            if not last:
                value = graph.add("Add", value, part(both, 0, width))
            skip = both if last else part(both, width, 2 * width)
            total = graph.add("Add", total, skip) if total else skip
        return total

    def flow(value, speaker, sign):
        half = width // 2
        for _ in range(4):
            kept, bent = part(value, 0, half), part(value, half, width)
            shift = conv(wavenet(conv(kept, half, width), 4, speaker), width, half)
            value = graph.add("Concat", graph.add(sign, bent, shift), kept, axis=1)
        return value

    def vocoder(value, speaker):
        channels, rate = 512, frames_a_second
        value = graph.add("Add", conv(value, width, channels, kernel=7), conv(speaker, voice, channels, rate=0))
        for times, kernel in ((8, 16), (8, 16), (2, 4), (2, 4)):
            value = graph.add("LeakyRelu", value, alpha=0.1)
            graph.multiplications += channels * channels // 2 * kernel * rate
            side, rate = (kernel - times) // 2, rate * times
            weights, bias = graph.weights(channels, channels // 2, kernel), graph.zeros(channels // 2)
            value = graph.add("ConvTranspose", value, weights, bias, strides=[times], pads=[side, side])
            channels //= 2
            sums = [residual(value, channels, kernel, rate) for kernel in (3, 7, 11)]
            value = graph.add("Mul", graph.add("Sum", *sums), graph.constant(1 / 3))
        return graph.add("Tanh", conv(graph.add("LeakyRelu", value, alpha=0.01), channels, 1, kernel=7, rate=rate), out="audio")

    def residual(value, channels, kernel, rate):
        for dilation in (1, 3, 5):
            inner = conv(graph.add("LeakyRelu", value, alpha=0.1), channels, channels, kernel, dilation, rate)
            inner = conv(graph.add("LeakyRelu", inner, alpha=0.1), channels, channels, kernel, 1, rate)
            value = graph.add("Add", value, inner)
        return value

    graph.per = "a second of sound"
    spectrogram = graph.takes("spectrogram", ["batch", bins, "frames"])
    source, target = graph.takes("source", ["batch", voice, 1]), graph.takes("target", ["batch", voice, 1])
    encoded = wavenet(conv(spectrogram, bins, width), 16, source)
    means = part(conv(encoded, width, 2 * width), 0, width)
    vocoder(flow(flow(means, source, "Add"), target, "Sub"), target)
    graph.answers("audio", ["batch", 1, "samples"])


def pictures(graph):
    vit(graph)
    graph.family, graph.task, graph.role = "siglip", "vision.embed", "vision"
    text = Graph(half=False)
    vectors = text.add("Gather", text.weights(len(WORDS), 768), text.takes("input_ids", ["batch", 64], WHOLE))
    text.add("ReduceSum", vectors, text.constant([1], "int64"), out="pooler_output", keepdims=0)
    text.answers("pooler_output", ["batch", 768])
    graph.beside = {"text": ("text.onnx", text.bytes()), "tokenizer": ("tokenizer.json", tokenizer())}


def sentences(graph):
    """BERT as the usual exporters leave it: an additive mask, and query, key and value apart."""
    width, heads, hidden, layers, length_max = 384, 12, 1536, 6, 512
    names = ("input_ids", "attention_mask", "token_type_ids")
    ids, mask, kinds = (graph.takes(name, ["batch", "length"], WHOLE) for name in names)

    def split(value, axes):
        shape = graph.constant([0, 0, heads, width // heads], "int64")
        return graph.add("Transpose", graph.add("Reshape", graph.linear(value, width, width), shape), perm=axes)

    def attention(value):
        query, key, values = (split(value, axes) for axes in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
        scores = graph.add("Div", graph.add("MatMul", query, key), graph.constant((width // heads) ** 0.5))
        shares = graph.add("Softmax", graph.add("Add", scores, hidden_tokens), axis=-1)
        joined = graph.add("Transpose", graph.add("MatMul", shares, values), perm=[0, 2, 1, 3])
        return graph.linear(graph.add("Reshape", joined, graph.constant([0, 0, width], "int64")), width, width)

    def feed_forward(value):
        inner = graph.linear(value, width, hidden)
        gate = graph.add("Add", graph.add("Erf", graph.add("Div", inner, graph.constant(2**0.5))), graph.constant(1.0))
        return graph.linear(graph.add("Mul", graph.add("Mul", inner, gate), graph.constant(0.5)), hidden, width)

    # Read as 32 bits in both widths: the worker averages the tokens.
    length = graph.add("Gather", graph.add("Shape", ids), graph.constant(1, "int64"))
    places = graph.add("Range", graph.constant(0, "int64"), length, graph.constant(1, "int64"))
    vectors = [graph.add("Gather", graph.weights(count, width), which) for count, which in ((len(WORDS), ids), (2, kinds), (length_max, places))]
    value = graph.norm(graph.add("Sum", vectors[0], vectors[1], vectors[2]), width, epsilon=1e-12)
    hidden_tokens = graph.add("Cast", graph.add("Unsqueeze", mask, graph.constant([1, 2], "int64")), to=graph.element)
    hidden_tokens = graph.add("Mul", graph.add("Sub", graph.constant(1.0), hidden_tokens), graph.constant(-10000.0))
    for _ in range(layers):
        value = graph.norm(graph.add("Add", attention(value), value), width, epsilon=1e-12)
        value = graph.norm(graph.add("Add", feed_forward(value), value), width, epsilon=1e-12)
    graph.add("Identity", value, out="last_hidden_state")
    graph.answers("last_hidden_state", ["batch", "length", width])
    graph.per = "a token"
    graph.family, graph.task, graph.role = "sentence-encoder", "text.embed", "encoder"
    graph.beside = {"tokenizer": ("tokenizer.json", tokenizer())}


def tiny(graph):
    inner = graph.add("Relu", graph.linear(graph.takes("x", ["batch", 256]), 256, 1024))
    graph.add("Identity", graph.linear(inner, 1024, 64), out="y")
    graph.answers("y", ["batch", 64])
    graph.per = "a row"


def tokenizer():
    """A `tokenizer.json` of BERT's kind that knows a few words and all letters."""
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    marks = {name: {"id": name, "ids": [vocabulary[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")}
    one, special = {"Sequence": {"id": "A", "type_id": 0}}, [{"SpecialToken": {"id": name, "type_id": 0}} for name in marks]
    framed = [special[0], one, special[1]]
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": framed, "pair": framed, "special_tokens": marks},
        "decoder": None,
        "model": {"type": "WordPiece", "vocab": vocabulary, "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
    }
    return json.dumps(document).encode()


LETTERS = "abcdefghijklmnopqrstuvwxyz"
COMMON = ["the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "with"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *COMMON, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
# `TensorProto.INT64`: the element of token ids.
WHOLE = 7

MODELS = {"vit-b16": vit, "converter": converter, "pictures": pictures, "sentences": sentences, "tiny": tiny}

if __name__ == "__main__":
    main()
