"""Small TFLite graphs, written with the schema that comes with LiteRT."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

Op = schema.BuiltinOperator
Kind = schema.BuiltinOptions
TYPES = {"float32": schema.TensorType.FLOAT32, "int32": schema.TensorType.INT32}


class GraphWriter:
    """One graph, built from its inputs to its output."""

    def __init__(self) -> None:
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators, self._graph.inputs = [], [], []
        self._buffers, self._codes = [schema.BufferT()], []

    def input(self, shape: tuple[int, ...], dtype: str = "float32") -> int:
        """A tensor that the caller fills."""
        self._graph.inputs.append(self._tensor(shape, dtype))
        return self._graph.inputs[-1]

    def constant(self, values: np.ndarray) -> int:
        """A tensor with `values`."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self._buffers.append(buffer)
        return self._tensor(values.shape, str(values.dtype), len(self._buffers) - 1)

    def apply(self, code: int, inputs: list[int], shape: tuple[int, ...], options: Any) -> int:
        """The output of an operator, whose options' class names their type."""
        named = schema.OperatorCodeT()
        named.builtinCode, named.version = code, 1
        named.deprecatedBuiltinCode = min(code, 127)
        self._codes.append(named)
        made = schema.OperatorT()
        made.opcodeIndex = len(self._codes) - 1
        made.inputs, made.outputs = inputs, [self._tensor(shape, "float32")]
        made.builtinOptions = options
        made.builtinOptionsType = getattr(Kind, type(options).__name__.removesuffix("T"))
        self._graph.operators.append(made)
        return made.outputs[0]

    def file(self, output: int) -> bytes:
        """The file of the graph that ends in `output`."""
        model = schema.ModelT()
        self._graph.outputs = [output]
        model.version, model.subgraphs = 3, [self._graph]
        model.buffers, model.operatorCodes = self._buffers, self._codes
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _tensor(self, shape: tuple[int, ...], dtype: str, buffer: int = 0) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = list(shape), TYPES[dtype], buffer
        tensor.name = f"t{len(self._graph.tensors)}"
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1


def text_encoder(table: np.ndarray) -> bytes:
    """ids int32 [1, 128], paddings float32 [1, 128] -> the sum of the real tokens' rows [1, D]."""
    made, (_, width) = GraphWriter(), table.shape
    ids, paddings = made.input((1, 128), "int32"), made.input((1, 128))
    rows = made.apply(
        Op.GATHER, [made.constant(table), ids], (1, 128, width), schema.GatherOptionsT()
    )
    ones = made.constant(np.ones((1, 128), np.float32))
    real = made.apply(Op.SUB, [ones, paddings], (1, 128), schema.SubOptionsT())
    shape = made.constant(np.array([1, 128, 1], np.int32))
    column = made.apply(Op.RESHAPE, [real, shape], (1, 128, 1), schema.ReshapeOptionsT())
    kept = made.apply(Op.MUL, [rows, column], (1, 128, width), schema.MulOptionsT())
    axis = made.constant(np.array([1], np.int32))
    return made.file(made.apply(Op.SUM, [kept, axis], (1, width), schema.ReducerOptionsT()))


def dense_over_frames(frames: int, weight: np.ndarray, *, mean: bool) -> bytes:
    """[frames x n] -> rows times `weight` [m, n]: [frames, m], or their mean [1, m]."""
    made, (out, width) = GraphWriter(), weight.shape
    options = schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = 0 if mean else schema.ActivationFunctionType.RELU
    shape = made.constant(np.array([frames, width], np.int32))
    flat = made.input((1, frames * width))
    rows = made.apply(Op.RESHAPE, [flat, shape], (frames, width), schema.ReshapeOptionsT())
    made_rows = made.apply(
        Op.FULLY_CONNECTED, [rows, made.constant(weight), -1], (frames, out), options
    )
    if not mean:
        return made.file(made_rows)
    axis, keep = made.constant(np.array([0], np.int32)), schema.ReducerOptionsT()
    keep.keepDims = True
    return made.file(made.apply(Op.MEAN, [made_rows, axis], (1, out), keep))
