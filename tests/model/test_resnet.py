"""The audio tower: CLIP's shapes, CLIP's pooling, and a place in the gradient for every weight."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from raymtr.errors import InputError
from raymtr.model.resnet import (
    LAGS,
    AttentionPool,
    Bottleneck,
    ModifiedResNet,
    autocorrelations,
)
from raymtr.tower_specs import SEMITONES, AudioTowerSpec

TINY = AudioTowerSpec(layers=(2, 1, 1, 1), width=8, heads=4, dim=24)


def test_pooling_is_clips_multi_head_attention() -> None:
    """Against torch's own attention, asked with the mean token, as CLIP calls it."""
    torch.manual_seed(0)
    pool = AttentionPool(channels=32, heads=4, dim=10)
    x = torch.randn(3, 32, 2, 5)
    tokens = x.flatten(2).permute(2, 0, 1)  # [HW, B, C]
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens]) + pool.positional_embedding[:, None]
    expected, _ = functional.multi_head_attention_forward(
        query=tokens[:1],
        key=tokens,
        value=tokens,
        embed_dim_to_check=32,
        num_heads=4,
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias,
        use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
    )
    assert (pool(x) - expected[0]).abs().max() < 1e-5


def test_the_full_size_has_the_papers_parameters() -> None:
    parameters = ModifiedResNet(AudioTowerSpec()).parameters()
    assert round(sum(p.numel() for p in parameters) / 1e6, 1) == 37.7


def test_a_picture_becomes_a_vector_through_a_stride_of_32() -> None:
    tower = ModifiedResNet(TINY).eval()
    seen: list[torch.Size] = []
    tower.layer4.register_forward_hook(lambda _m, _i, out: seen.append(out.shape))
    assert tower(torch.randn(2, 64, 100)).shape == (2, 24)
    assert seen == [torch.Size([2, 8 * 32, 2, 3])]


def test_bands_are_normalised_beside_their_places() -> None:
    tower = ModifiedResNet(replace(TINY, band_input=True), n_mels=64)
    slope = torch.linspace(3, -9, 64)[:, None] + torch.rand(5, 64, 40)
    x = tower.input(slope)
    assert x.shape == (5, 2, 64, 40)
    assert x[:, 0].mean((0, 2)).abs().max() < 1e-4
    assert (x[:, 0].std((0, 2)) - 1).abs().max() < 0.02
    assert torch.equal(x[3, 1, :, 7], torch.linspace(-1, 1, 64))
    assert tower.eval()(slope).shape == (5, 24)
    with pytest.raises(InputError, match="band_input is for kind=resnet"):
        AudioTowerSpec(kind="ast", band_input=True)


def test_statistics_of_the_bands_are_added_to_the_pooled_vector() -> None:
    spec = replace(TINY, band_statistics=True)
    torch.manual_seed(0)
    tower = ModifiedResNet(spec, n_mels=64).eval()
    assert tower.statistics is not None
    mel = torch.randn(3, 64, 40)
    x = mel[1].numpy().astype("float64")
    by_hand = [x.mean(1), x.std(1), (x[:, 1:] - x[:, :-1]).std(1)]
    inputs: list[torch.Tensor] = []
    tower.statistics.projection.register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))
    with torch.no_grad():
        whole = tower(mel)
        added = tower.statistics(mel)
    scale = (1 + tower.statistics.norm.eps) ** 0.5  # a new norm in evaluation mode
    assert abs(inputs[0][1].numpy() * scale - np.concatenate(by_hand)).max() < 1e-5
    tower.statistics = None
    assert (whole - tower(mel) - added).abs().max() < 1e-5
    with pytest.raises(InputError, match="band_statistics is for kind=resnet"):
        AudioTowerSpec(kind="ast", band_statistics=True)


def test_the_tempogram_is_the_onsets_autocorrelation() -> None:
    mel = torch.zeros(2, 6, 200)
    mel[0, :2, 10::40] = 1.0  # a low pulse every 40 frames, a middle one every 25
    mel[0, 2:4, 5::25] = 1.0
    found = autocorrelations(mel)
    assert found.shape == (2, 3, LAGS)
    onsets = (mel[0, 0].diff() > 0).double()
    onsets -= onsets.mean()
    by_hand = [float(onsets[lag:] @ onsets[:-lag] / (onsets @ onsets)) for lag in (1, 40, 77, 128)]
    assert np.abs(found[0, 0, [0, 39, 76, 127]].numpy() - by_hand).max() < 1e-5
    assert [int(group.argmax()) + 1 for group in found[0, :2]] == [40, 25]
    assert float(found[0, 2].abs().max()) == float(found[1].abs().max()) == 0.0  # silence
    short = autocorrelations(mel[:, :, :64])
    assert short.shape == (2, 3, LAGS)
    assert float(short[..., 63:].abs().max()) < 1e-6  # beyond the window


def test_the_tempogram_is_added_to_the_pooled_vector() -> None:
    torch.manual_seed(0)
    tower = ModifiedResNet(replace(TINY, band_statistics=True, tempogram=True), n_mels=64).eval()
    assert tower.tempogram is not None
    mel = torch.randn(3, 64, 40)
    with torch.no_grad():
        whole, added = tower(mel), tower.tempogram(mel)
        tower.tempogram = None
        assert (whole - tower(mel) - added).abs().max() < 1e-5
    with pytest.raises(InputError, match="tempogram is for kind=resnet"):
        AudioTowerSpec(kind="ast", tempogram=True)


@pytest.mark.parametrize("bands", [False, True])
def test_every_weight_gets_a_gradient(bands: bool) -> None:
    """A data-parallel run stops at a parameter without one; the key bias is the likely victim."""
    tower = ModifiedResNet(
        replace(TINY, band_input=bands, band_statistics=bands, tempogram=bands),
        n_mels=64,
        semitones=bands,
    )
    tower(torch.randn(2, 64 + SEMITONES * bands, 64)).square().sum().backward()
    assert [name for name, p in tower.named_parameters() if p.grad is None] == []


def test_blocks_begin_as_their_shortcuts() -> None:
    tower = ModifiedResNet(TINY)
    block = tower.layer1[1]
    assert isinstance(block, Bottleneck) and block.downsample is None
    x = torch.rand(1, 32, 4, 4)
    assert torch.equal(block(x), x)


def test_batch_norms_can_be_swapped() -> None:
    """Plain modules, found by type: what a shared variant needs."""
    norms = [m for m in ModifiedResNet(TINY).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 3 + 5 * 3 + 4


def test_heads_that_do_not_divide_the_channels_are_rejected() -> None:
    with pytest.raises(InputError, match="heads"):
        AudioTowerSpec(layers=(1, 1, 1, 1), width=8, heads=3, dim=8)
