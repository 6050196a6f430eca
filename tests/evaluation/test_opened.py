"""A probe that trains its backbone too."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from raymtr.evaluation.opened import train


def test_backbone_and_head_learn_what_the_frozen_backbone_hides() -> None:
    torch.manual_seed(0)
    tower = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval()
    with torch.no_grad():
        tower[0].weight[:, 0] = 0.0  # the class stands in what the backbone does not pass on
    counted = tower[1].running_mean.clone()
    model = nn.Sequential(tower, nn.Linear(3, 2))
    y = torch.arange(64) % 2
    x = 0.1 * torch.randn(64, 4)
    x[:, 0] = 40.0 * (2 * y - 1)
    train(model, x, y, functional.cross_entropy)
    assert (model(x).argmax(dim=1) == y).all()
    assert tower[0].weight[:, 0].abs().min() > 0, "the backbone was trained"
    assert torch.equal(tower[1].running_mean, counted), "and its batch norms count nothing"
