"""Writes small ONNX graphs, for the scripts beside it."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, HALF, WHOLE, BOOL = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.BOOL
OPSET = 17


class Graph:
    """Collects nodes and constants; `save` checks the graph and writes it."""

    def __init__(self):
        self.nodes, self.constants, self.count = [], [], 0

    def constant(self, values, kind=np.float32):
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def add(self, operator, *inputs, out=None, **attributes):
        self.count += 1
        out = out or f"value_{self.count}"
        self.nodes.append(helper.make_node(operator, list(inputs), [out], **attributes))
        return out

    def save(self, path, inputs, outputs, metadata=None, weights=None):
        def values(described):
            return [helper.make_tensor_value_info(*one) for one in described]

        graph = helper.make_graph(self.nodes, "small", values(inputs), values(outputs), self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        for key, value in (metadata or {}).items():
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value
        onnx.checker.check_model(model, full_check=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        if weights:
            path.with_name(weights).unlink(missing_ok=True)
            onnx.save(model, path, save_as_external_data=True, location=weights, size_threshold=100)
        else:
            onnx.save(model, path)
