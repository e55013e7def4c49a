#!/usr/bin/env python3
"""Make a picture tower of SigLIP's shape (ViT-B/16 at 224) with random weights, in 32 and 16 bits, into the models' folder.

Why it exists: to measure a GPU with a graph of real size where the real weights cannot be fetched. Its answers mean
nothing. `gpuctl models bench vit-b16-fp32 vit-b16-fp16` measures both. Weights (343 and 172 MB) are never committed.

Needs the packages of crates/gpu-inference/tests/graphs/requirements.txt (scripts/make-graphs.py puts them into the cache).
"""

import argparse
import hashlib
import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("make_graphs", HERE / "make-graphs.py")
make_graphs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_graphs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=12, help="default: %(default)s")
    parser.add_argument("--models", type=Path, default=make_graphs.cache_folder() / "models", help="default: %(default)s")
    arguments = parser.parse_args()
    sys.path.insert(0, str(make_graphs.packages(make_graphs.cache_folder())))
    for half in (False, True):
        write(arguments.models, arguments.layers, half)


def write(models, layers, half):
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    width, heads, hidden, side, patch = 768, 12, 3072, 224, 16
    tokens, kind = (side // patch) ** 2, np.float16 if half else np.float32
    element = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    random = np.random.default_rng(0)
    nodes, constants = [], []

    def constant(values, kind=kind):
        name = f"c{len(constants)}"
        constants.append(numpy_helper.from_array(np.asarray(values).astype(kind), name))
        return name

    def weights(*shape):
        return constant(random.standard_normal(shape, np.float32) * 0.02)

    def add(operator, *inputs, out=None, **attributes):
        out = out or f"v{len(nodes)}"
        nodes.append(helper.make_node(operator, list(inputs), [out], **attributes))
        return out

    def linear(value, inner, outer):
        return add("Add", add("MatMul", value, weights(inner, outer)), constant(np.zeros(outer)))

    def norm(value):
        return add("LayerNormalization", value, constant(np.ones(width)), constant(np.zeros(width)), axis=-1, epsilon=1e-6)

    def split(value, axes):
        shape = constant([0, 0, heads, width // heads], np.int64)
        return add("Transpose", add("Reshape", value, shape), perm=axes)

    def attention(value):
        query, key = split(linear(value, width, width), [0, 2, 1, 3]), split(linear(value, width, width), [0, 2, 3, 1])
        values = split(linear(value, width, width), [0, 2, 1, 3])
        scores = add("Softmax", add("Mul", add("MatMul", query, key), constant((width // heads) ** -0.5)), axis=-1)
        joined = add("Transpose", add("MatMul", scores, values), perm=[0, 2, 1, 3])
        return linear(add("Reshape", joined, constant([0, 0, width], np.int64)), width, width)

    def feed_forward(value):
        inner = linear(value, width, hidden)
        # Gelu as SigLIP has it: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).
        cube = add("Mul", add("Mul", inner, inner), inner)
        bent = add("Add", inner, add("Mul", cube, constant(0.044715)))
        gate = add("Add", add("Tanh", add("Mul", bent, constant(0.7978845608))), constant(1.0))
        return linear(add("Mul", add("Mul", inner, constant(0.5)), gate), hidden, width)

    value = add("Conv", "pixel_values", weights(width, 3, patch, patch), constant(np.zeros(width)), strides=[patch, patch])
    value = add("Transpose", add("Reshape", value, constant([0, 0, -1], np.int64)), perm=[0, 2, 1])
    value = add("Add", value, weights(1, tokens, width))
    for _ in range(layers):
        value = add("Add", value, attention(norm(value)))
        value = add("Add", value, feed_forward(norm(value)))
    add("ReduceMean", norm(value), out="pooler_output", axes=[1], keepdims=0)

    inputs = [helper.make_tensor_value_info("pixel_values", element, ["batch", 3, side, side])]
    outputs = [helper.make_tensor_value_info("pooler_output", element, ["batch", width])]
    graph = helper.make_graph(nodes, "vit-b16", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    precision = "fp16" if half else "fp32"
    folder = models / f"vit-b16-{precision}"
    folder.mkdir(parents=True, exist_ok=True)
    content = model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    manifest = f"""# Random weights in SigLIP's shape: for measuring only. Made by scripts/make-vit.py.
name = "{folder.name}"
family = "onnx"
task = "onnx.run"
licence = "none: random numbers"
precision = "{precision}"
max_batch = 64
memory_mib = 1000

[[file]]
role = "graph"
path = "model.onnx"
sha256 = "{hashlib.sha256(content).hexdigest()}"
size_bytes = {len(content)}
origin = {{ url = "file:///made-by/scripts/make-vit.py" }}
"""
    (folder / "model.toml").write_text(manifest, encoding="utf-8")
    print(f"made {folder / 'model.onnx'}: {len(content) / 1e6:.0f} MB, {layers} layers, {precision}")


if __name__ == "__main__":
    main()
