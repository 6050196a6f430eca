"""LoRA on a tower: small low-rank updates are trained, its own weights stay (Hu et al. 2021).

The updates are peft's. They are on every linear layer of a transformer, or on every convolution of
a ResNet, whose attention pooling reads its weights directly and stays as it is. When training ends
they are merged, so a saved model has the same parts as any other.
"""

from __future__ import annotations

import torch
from torch import nn

from raymtr.model.resnet import AttentionPool
from raymtr.model.two_towers import TwoTowers
from raymtr.specs import TrainSpec

ALPHA_PER_RANK = 2  # the update's scale, alpha / rank, is the same at every rank


def add_lora(towers: nn.Module, spec: TrainSpec) -> None:
    """Freeze the towers that `spec` gives a rank, and add their updates, in place.

    The first update is zero. Its random factor follows from `spec.seed`; the global random state is
    not changed.
    """
    for side, rank in (("audio_tower", spec.lora_audio), ("text_tower", spec.lora_text)):
        if not rank:
            continue
        from peft import LoraConfig, inject_adapter_in_model

        tower = getattr(towers, side)
        tower.requires_grad_(False)
        config = LoraConfig(
            r=rank, lora_alpha=ALPHA_PER_RANK * rank, target_modules=targets_of(tower)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            inject_adapter_in_model(config, tower)


def targets_of(tower: nn.Module) -> list[str]:
    """Names of the tower's linear layers, or of its convolutions where it has no linear ones."""
    pools = [name for name, module in tower.named_modules() if isinstance(module, AttentionPool)]

    def named(kind: type[nn.Module]) -> list[str]:
        return [
            name
            for name, module in tower.named_modules()
            if isinstance(module, kind) and not name.startswith(tuple(f"{p}." for p in pools))
        ]

    return named(nn.Linear) or named(nn.Conv2d)


def merge_lora(towers: TwoTowers, spec: TrainSpec) -> TwoTowers:
    """The same towers with every update added to its layer's weights, in place."""
    if not spec.lora_audio and not spec.lora_text:
        return towers
    from peft.tuners.lora import LoraLayer

    for name, module in list(towers.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, last = name.rpartition(".")
            setattr(towers.get_submodule(parent), last, module.get_base_layer())
    return towers
