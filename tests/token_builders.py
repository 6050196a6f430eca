"""A small catalog and settings for tests of tokens and of what is generated from them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile

from raymtr import storage
from raymtr.recipes import musiclm_small
from raymtr.specs import Settings
from raymtr.track import check_tracks
from raymtr.workspace import Workspace
from tests.generation.conftest import KINDS, MUSICLM, TOKENS, sound


def settings_of(steps: int) -> Settings:
    small = musiclm_small()
    train = dataclasses.replace(
        small.train, steps=steps, global_batch=4, warmup_steps=1, checkpoint_every=2
    )
    tokens = dataclasses.replace(TOKENS, decoder_steps=4, fit_tracks=8)
    return dataclasses.replace(small, tokens=tokens, musiclm=MUSICLM, train=train)


def make_catalog(root: Path) -> Workspace:
    """Ten clips of two kinds, two of them to validate on, and a file that is no audio."""
    rng, rows = np.random.default_rng(0), []
    for n in range(10):
        kind, file = KINDS[n % 2], root / f"{n}.wav"
        soundfile.write(file, sound(kind, rng), 16_000)
        split = "valid" if n >= 8 else "train"
        rows.append({"track_id": f"t{n}", "uri": str(file), "tags": [kind], "split": split})
    (root / "bad.wav").write_bytes(b"RIFF, but no more")
    rows.append({"track_id": "bad", "uri": str(root / "bad.wav"), "split": "train"})
    workspace = Workspace.open(str(root / "w"), create=True)
    table = check_tracks(pa.Table.from_pylist(rows))
    storage.write_table(f"{workspace.tracks}/part-0.parquet", table)
    return workspace
