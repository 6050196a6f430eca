"""The steps of the job without Ray: files, parts, stored tokens, and the batches of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from token_builders import make_catalog, settings_of

from jobs.tokenize_catalog import fit_and_save, fit_sample, sentences_of
from raymtr import load_model, storage
from raymtr.embeddings.store import ModelRef
from raymtr.embeddings.tables import SOURCES
from raymtr.generation.parts import codec_rate, read_parts
from raymtr.generation.token_store import (
    TokenStore,
    find_parts,
    find_tokens,
    local_tokens,
    token_tracks,
    tokens_of,
)
from raymtr.generation.tokenize_tracks import HearTracks, TokenizeTracks, decode_twice
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
    model = load_model(tiny_model)
    joint = ModelRef(fingerprint=model.fingerprint, precision="fp32", dim=model.spec.dim)
    rate, sample = codec_rate(settings.tokens), fit_sample(workspace, settings.tokens)
    how = {"spec": model.spec.audio, "rate": rate, "embed": settings.embed}
    hear = HearTracks(tiny_model, joint, settings.tokens, rate, threads=1)
    decoded = decode_twice(sample.select(SOURCES), **how, hung=workspace.path("h"), clip_s=2.0)
    heard = hear(pa.concat_tables(decoded))
    name = fit_and_save(
        heard,
        source=tiny_model,
        joint=joint,
        settings=settings,
        sentences=sentences_of(sample),
        workspace=workspace,
    )
    assert name == find_parts(workspace, settings.tokens, joint.fingerprint)
    assert find_parts(workspace, settings.tokens, "other") is None
    made = TokenStore(workspace, name, TOKENS.joint_levels)
    made.take()
    tokenize = TokenizeTracks(made.parts_folder, tiny_model, joint, threads=1)
    catalog = storage.read_tables(workspace.tracks)
    assert catalog is not None
    rows = decode_twice(catalog.select(SOURCES), **how, hung=made.hung)
    made.commit(tokenize(pa.concat_tables(rows)))
    storage.copy_folder(tiny_model, made.model_folder, last="config.json")
    made.release()
    return made


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
