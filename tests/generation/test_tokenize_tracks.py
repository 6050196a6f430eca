"""The steps of the job without Ray: files, parts, stored tokens, and the batches of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from token_builders import make_catalog, settings_of, tokenised

from raymtr import load_model, storage
from raymtr.generation.parts import read_parts
from raymtr.generation.token_store import (
    TokenStore,
    find_parts,
    find_tokens,
    local_tokens,
    token_tracks,
    tokens_of,
)
from raymtr.specs import Settings
from raymtr.training.musiclm import MusicLMObjective
from raymtr.workspace import Workspace
from tests.generation.conftest import SECONDS, TOKENS


@pytest.fixture(scope="module")
def settings() -> Settings:
    return settings_of(steps=2)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_catalog(tmp_path_factory.mktemp("catalog"))


@pytest.fixture(scope="module")
def store(workspace: Workspace, settings: Settings, tiny_model: str) -> TokenStore:
    """Tokens of the whole catalog, as the job makes them."""
    return tokenised(workspace, settings, tiny_model)


def test_parts_are_found_by_their_settings_and_towers(
    workspace: Workspace, store: TokenStore, settings: Settings, tiny_model: str
) -> None:
    joint = load_model(tiny_model).fingerprint
    assert find_parts(workspace, settings.tokens, joint) == store.made_by.fingerprint
    assert find_parts(workspace, settings.tokens, "other") is None


@pytest.mark.slow
def test_tokens_are_those_of_the_parts(store: TokenStore, settings: Settings) -> None:
    parts = read_parts(store.parts_folder)
    table = storage.read_tables(f"{store.folder}/tracks")
    assert table is not None and len(table) == 10
    row = table.filter(pa.compute.equal(table["track_id"], "t3")).to_pylist()[0]
    wave = soundfile.read(Path(store.folder).parents[2] / "3.wav", dtype="float32")[0]
    semantic, acoustic = tokens_of(row, TOKENS.levels)
    assert np.array_equal(acoustic, parts.codec.encode(wave))
    assert np.array_equal(semantic, parts.semantic.encode(wave))
    assert len(acoustic) == SECONDS * 25 and len(semantic) == int(SECONDS * 12.5)
    windows = storage.read_tables(f"{store.folder}/windows")
    assert windows is not None
    assert windows["joint"].type.list_size == TOKENS.joint_levels
    letters = store.read_dead_letters().to_pylist()
    assert [letter["track_id"] for letter in letters] == ["bad"]


def test_training_starts_from_the_tokens(
    workspace: Workspace, store: TokenStore, settings: Settings, tmp_path: Path
) -> None:
    found = find_tokens(workspace, settings.tokens)
    assert found.folder == store.folder
    tracks = token_tracks(workspace, found)
    assert sorted(set(tracks["split"].to_pylist())) == ["train", "valid"]
    assert len(local_tokens(store.folder)) == 10
    objective = MusicLMObjective(settings, store.folder, torch.device("cpu"))
    train = tracks.filter(pa.compute.equal(tracks["split"], "train"))
    valid = tracks.filter(pa.compute.equal(tracks["split"], "valid"))
    batches = objective.batches(train, None, rank=0, workers=1)  # type: ignore[arg-type]
    check = objective.validation(valid)
    for number, batch in batches.ahead(0, 2):
        figures = objective.step(batch, number)
    assert set(check(objective.step)) == {"valid_semantic", "valid_coarse", "valid_fine"}
    assert figures["loss"] > 0
    other = dataclasses.replace(settings.tokens, seed=9)
    with pytest.raises(ValueError, match="no finished tokens with these settings"):
        find_tokens(workspace, other)
