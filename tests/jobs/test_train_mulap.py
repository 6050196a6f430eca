"""MuLaP through the jobs: trained on Ray Train, its features stored, a probe on them."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from jobs import embed_catalog as embed_job
from jobs.embed_catalog import embed_catalog, plan_embedding
from jobs.embed_features import embed_features
from jobs.evaluate_probe import describe as describe_probe
from jobs.evaluate_probe import evaluate_probe
from jobs.train_towers import describe, train_towers
from raymtr import storage
from raymtr.errors import InputError
from raymtr.mulap.matcher import RunMatcher
from raymtr.recipes import mulap_small
from raymtr.specs import EmbedSpec, MulapSpec, Settings
from raymtr.tower_specs import AudioSpec, AudioTowerSpec
from raymtr.track import check_tracks
from raymtr.workspace import Workspace


def settings() -> Settings:
    base = mulap_small()
    audio = AudioSpec(sample_rate=8000, window_s=0.5, n_fft=256, hop=100, n_mels=32)
    tower = AudioTowerSpec(layers=(1, 1, 1, 1), width=8, heads=4, dim=24)
    return dataclasses.replace(
        base,
        towers=dataclasses.replace(base.towers, audio=audio, audio_tower=tower),
        mulap=MulapSpec(
            clip_s=1.0, text_layers=2, audio_layers=2, audio_width=16, cross_width=16, heads=2
        ),
        train=dataclasses.replace(
            base.train,
            steps=4,
            global_batch=4,
            warmup_steps=1,
            threads=1,
            checkpoint_every=2,
            validate_every=2,
        ),
        embed=dataclasses.replace(base.embed, actors=1),
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """16 tones of two timbres; 4 to validate on; one file is broken."""
    rng, rows = np.random.default_rng(0), []
    for n in range(16):
        high = n % 2
        wave = 0.3 * np.sin(
            2 * np.pi * (1500 if high else 200) * np.arange(10_000 + 500 * n) / 8000
        )
        file = tmp_path / f"{n}.wav"
        soundfile.write(file, wave + rng.normal(0, 0.01, len(wave)), 8000)
        tags = ["high whistle" if high else "low hum", f"number {n}"]
        row = {"track_id": f"t{n:02d}", "uri": str(file), "title": f"Tone {n}", "tags": tags}
        rows.append(row | {"split": "valid" if n % 4 == 3 else "train", "kind": tags[0]})
    (tmp_path / "12.wav").write_bytes(b"no audio at all")
    workspace = Workspace.open(str(tmp_path / "w"), create=True)
    storage.write_table(f"{workspace.tracks}/0.parquet", check_tracks(pa.Table.from_pylist(rows)))
    return workspace


@pytest.mark.slow
def test_mulap_is_trained_embedded_and_probed(workspace: Workspace, ray_cluster: None) -> None:
    answer = train_towers(workspace, settings(), run="weak")
    figures = answer["metrics"]
    for name in ("words", "chunks", "match"):
        assert np.isfinite([figures[name], figures[f"{name}_baseline"]]).all()
    assert figures["valid_tracks"] == 4 and answer["failed"] == 1
    assert "of the baseline" in describe(answer)
    assert train_towers(workspace, settings(), run="weak") == answer, "finished: answers at once"
    other = dataclasses.replace(settings().mulap, masked=0.3)
    with pytest.raises(InputError, match=r"mulap\.masked was 0\.15 and is 0\.3"):
        train_towers(workspace, dataclasses.replace(settings(), mulap=other), run="weak")

    assert workspace.newest_model() is None, "it is no model to embed with by itself"
    with pytest.raises(InputError, match="is a MuLaP model, which has no joint space"):
        embed_catalog(workspace, settings(), model="weak")
    two = dataclasses.replace(settings(), embed=EmbedSpec(actors=2))  # a task needs a core too
    stored = embed_features(workspace, two, model="weak")
    assert (stored["embedded"], stored["failed"]) == (15, 1)
    assert embed_features(workspace, settings(), model="weak")["new"] == 0
    plan = plan_embedding(workspace, settings(), model="weak", output="features")
    assert (plan["tracks"], plan["done"]) == (0, 16)
    found = RunMatcher(workspace, "weak").probabilities("a low hum", ["t00", "t01", "t12"])
    assert list(found) == ["t00", "t01"]

    ids = [f"t{n:02d}" for n in range(16) if n != 12]
    lines = [f"{i},{'high' if int(i[1:]) % 2 else 'low'}" for i in ids]
    task = Path(workspace.root) / "task.csv"
    task.write_text("\n".join(["track_id,label", *lines]))
    models = ["weak", "random:weak", "log-mel"]
    probed = evaluate_probe(workspace, str(task), models, labels="0,all", seeds=1, finetune=True)
    json.dumps(probed)
    assert probed["models"]["log-mel"]["logistic"]["all"]["mean"] == 1.0
    assert probed["models"]["weak"]["zero_shot"]["by"] == "match probability"
    assert probed["models"]["log-mel"]["zero_shot"] is None
    assert "zero-shot" in describe_probe(probed) and "finetuned" in describe_probe(probed)
    opened = {name for name, cells in probed["models"].items() if "finetuned" in cells}
    assert opened == {"weak", "random:weak"}, "log-mel has no weights"
    with pytest.raises(InputError, match="--labels is a list such as"):
        evaluate_probe(workspace, str(task), ["log-mel"], labels="many")


def test_features_need_a_model_and_no_tags(workspace: Workspace) -> None:
    parser = argparse.ArgumentParser()
    embed_job.add_arguments(parser)
    for more, words in (
        (["--also", "tags,attributes"], "--also goes with --output vectors"),
        ([], "--output features needs --model"),
    ):
        with pytest.raises(InputError, match=words):
            arguments = parser.parse_args(["--output", "features", *more])
            embed_job.run(arguments, workspace, settings())
