"""The audio tower's convolutions as OpenVINO graphs (extra `fast`), for CPUs.

The graphs are built here node by node in one second. OpenVINO's own converter traces the model and
takes ten. They have one fixed shape, a batch of one. There are two graphs because the tower's start
stays float32 (see `audio_forward`).

OpenVINO reports every import to its makers, from a forked process. raymtr sends no telemetry: it
hides the telemetry module, so OpenVINO behaves as if that module were not installed.
"""

from __future__ import annotations

import copy
import sys

import torch
from torch import Tensor, nn

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino import Node  # noqa: E402
from openvino import opset13 as ops  # noqa: E402

from raymtr.model.resnet import Bottleneck, ModifiedResNet, blocks_of  # noqa: E402
from raymtr.tower_specs import AudioSpec  # noqa: E402

HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}


class OpenVinoConvolutions:
    """A folded tower before its pooling: float32 log-mel [1, n_mels, frames] -> [1, C, H, W]."""

    def __init__(self, tower: ModifiedResNet, spec: AudioSpec, dtype: torch.dtype) -> None:
        self._input = copy.deepcopy(tower.input)
        shape = [1, tower.conv1.in_channels, spec.n_mels, spec.frames]
        parameter = ops.parameter(shape, openvino.Type.f32)
        self._start = _compiled(_start(tower, parameter), [parameter], torch.float32)
        between = [self._start.get_output_tensor(number) for number in (0, 1)]
        arriving = [ops.parameter(tensor.shape, openvino.Type.f32) for tensor in between]
        self._rest = _compiled([_rest(tower, *arriving)], arriving, dtype)
        for number, tensor in enumerate(between):
            self._rest.set_input_tensor(number, tensor)

    def __call__(self, mel: Tensor) -> Tensor:
        """The last stage's feature map."""
        self._start.infer([self._input(mel).contiguous().numpy()], share_inputs=True)
        self._rest.infer()
        return torch.tensor(self._rest.get_output_tensor().data)


def _compiled(
    results: list[Node], parameters: list[Node], dtype: torch.dtype
) -> openvino.InferRequest:
    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[dtype],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        # With pinning, all processes of a machine would share its first cores.
        "ENABLE_CPU_PINNING": False,
    }
    graph = openvino.Model(results, parameters, "audio_tower")
    return openvino.compile_model(graph, "CPU", settings).create_infer_request()


def _start(tower: ModifiedResNet, x: Node) -> list[Node]:
    """The stem's map and the first shortcut's."""
    for module in (tower.conv1, tower.conv2, tower.conv3):
        x = ops.relu(_convolution(module, x))
    x = _average(tower.avgpool, x)
    return [x, _shortcut(blocks_of(tower)[0], x)]


def _rest(tower: ModifiedResNet, x: Node, onto: Node) -> Node:
    first, *others = blocks_of(tower)
    x = _bottleneck(first, x, onto)
    for block in others:
        x = _bottleneck(block, x, _shortcut(block, x))
    return x


def _shortcut(block: Bottleneck, x: Node) -> Node:
    if block.downsample is None:
        return x
    average, convolution = block.downsample[0], block.downsample[1]
    assert isinstance(convolution, nn.Conv2d)  # as resnet.Bottleneck makes it
    return _convolution(convolution, _average(average, x))


def _bottleneck(block: Bottleneck, x: Node, onto: Node) -> Node:
    y = ops.relu(_convolution(block.conv1, x))
    y = ops.relu(_convolution(block.conv2, y))
    y = _convolution(block.conv3, _average(block.avgpool, y))
    return ops.relu(ops.add(y, onto))


def _convolution(module: nn.Conv2d, x: Node) -> Node:
    assert module.bias is not None  # set by folding
    weight = ops.constant(module.weight.detach().numpy())
    bias = ops.constant(module.bias.detach().numpy().reshape(1, -1, 1, 1))
    padding = [int(p) for p in module.padding]
    y = ops.convolution(x, weight, list(module.stride), padding, padding, [1, 1])
    return ops.add(y, bias)


def _average(module: nn.Module, x: Node) -> Node:
    if isinstance(module, nn.Identity):
        return x
    size = [int(module.kernel_size)] * 2  # type: ignore[arg-type]
    return ops.avg_pool(x, size, [0, 0], [0, 0], size, exclude_pad=False)
