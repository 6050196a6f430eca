"""A tower's layers: learning rates that fall with depth, and activations that are recomputed.

Layers are found by name: `layer.3.` of BERT's family, `layers.3.` of AST, `layer3.` of a ResNet.
Parameters before the first layer are the embedding (or stem), those after the last are the pooling.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from raymtr.model.resnet import Bottleneck

TEXT_TOWER = "text_tower"
TOWERS = ("audio_tower", TEXT_TOWER)
_LAYER = re.compile(r"\.(?:layers?|block|h)\.?(\d+)\.")


def layers_below(names: list[str]) -> dict[str, int]:
    """How many layers are above each of one tower's parameters, which are in order of their use.

    The pooling has 0, the last layer 1, the embedding one more than the first layer.
    """
    found = [_LAYER.search(name) for name in names]
    numbers = sorted({int(match[1]) for match in found if match})
    below, seen = {}, False
    for name, match in zip(names, found, strict=True):
        seen = seen or match is not None
        if match:
            below[name] = len(numbers) - numbers.index(int(match[1]))
        else:
            below[name] = 0 if seen or not numbers else len(numbers) + 1
    return below


def rate_groups(towers: nn.Module, decay: float, text_rate: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer; `scale` of a group multiplies the learning rate.

    A layer's rate is `decay` times that of the layer above it, and in the text tower `text_rate`
    times that. Heads and the logit scale have the whole rate.
    """
    learned = {name: p for name, p in towers.named_parameters() if p.requires_grad}
    scales = dict.fromkeys(learned, 1.0)
    for tower in TOWERS:
        names = [name for name, _ in towers.named_parameters() if name.startswith(tower)]
        own = text_rate if tower == TEXT_TOWER else 1.0
        scales |= {name: own * decay**depth for name, depth in layers_below(names).items()}
    return [
        {"params": [p for name, p in learned.items() if scales[name] == scale], "scale": scale}
        for scale in sorted({scales[name] for name in learned}, reverse=True)
    ]


def checkpoint_layers(towers: nn.Module) -> None:
    """Make each layer of both towers recompute its activations in the backward, in place.

    Layers are those of a transformer, and a ResNet's bottlenecks. Dropout is the same in the
    recomputation. Evaluation keeps no activations, so nothing changes there.
    """
    for name, module in list(towers.named_modules()):
        in_list = re.search(r"\.(?:layers?|block|h)\.\d+$", name)
        if name.startswith(TOWERS) and (in_list or isinstance(module, Bottleneck)):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)
