from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from raymtr.embeddings.embed_tracks import decode_tracks, embed_tracks
from raymtr.embeddings.store import EMBEDDED_SCHEMA
from raymtr.model.model import Model
from raymtr.model.pretrained import load_model
from raymtr.specs import EmbedSpec

RATE = 22_050


@pytest.fixture(scope="module")
def model(tiny_model: str) -> Model:
    return load_model(tiny_model)


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    for name, seconds in (("long", 23.0), ("short", 2.0), ("exact", 10.0)):
        samples = 0.1 * rng.standard_normal(int(seconds * RATE))
        soundfile.write(folder / f"{name}.wav", samples, RATE)
    (folder / "text.wav").write_text("not audio")
    names = ["long", "absent", "short", "text", "exact"]
    uris = [str(folder / f"{name}.wav") for name in names]
    versions = pa.nulls(len(names), pa.string())
    return pa.table({"track_id": names, "uri": uris, "file_version": versions})


def decode(
    model: Model, batch: pa.Table, *, max_s: float = 60.0, hung: str = "/absent"
) -> pa.Table:
    embed = EmbedSpec(max_track_s=max_s, max_file_mb=100.0)
    return pa.concat_tables(decode_tracks(batch, spec=model.spec.audio, embed=embed, hung=hung))


@pytest.mark.slow
def test_each_track_is_embedded_as_the_model_alone_would(model: Model, batch: pa.Table) -> None:
    embedded = embed_tracks(model, decode(model, batch))
    assert embedded.schema == EMBEDDED_SCHEMA
    rows = {row["track_id"]: row for row in embedded.to_pylist()}
    assert list(rows) == batch["track_id"].to_pylist()
    for name, uri in zip(*batch.select(["track_id", "uri"]).to_pydict().values(), strict=True):
        if name in ("absent", "text"):
            continue
        starts, windows = model.audio_windows(uri)
        assert rows[name]["code"] is None
        assert rows[name]["starts_s"] == starts.tolist()
        assert (
            np.array(rows[name]["vector"], np.float32).tobytes()
            == model.encode_audio([uri])[0].tobytes()
        )
        np.testing.assert_array_equal(
            np.array(rows[name]["windows"], np.float32).reshape(windows.shape), windows
        )


def test_windows_end_with_the_track(model: Model, batch: pa.Table) -> None:
    rows = {row["track_id"]: row for row in embed_tracks(model, decode(model, batch)).to_pylist()}
    assert rows["long"]["starts_s"] == pytest.approx([0.0, 10.0, 13.0], abs=1e-3)
    assert rows["long"]["ends_s"] == pytest.approx([10.0, 20.0, 23.0], abs=1e-3)
    assert rows["short"]["ends_s"] == pytest.approx([2.0], abs=1e-3)


def test_bad_files_become_rows_with_a_reason(model: Model, batch: pa.Table) -> None:
    decoded = decode(model, batch, max_s=15.0)
    codes = dict(zip(decoded["track_id"].to_pylist(), decoded["code"].to_pylist(), strict=True))
    assert codes == {
        "long": "too_long",
        "absent": "missing",
        "short": None,
        "text": "not_audio",
        "exact": None,
    }
    embedded = embed_tracks(model, decoded)
    assert embedded["code"].to_pylist() == decoded["code"].to_pylist()
    assert all(embedded["reason"][row].as_py() for row in (0, 1, 3))


def test_a_batch_of_failures_needs_no_model(model: Model, batch: pa.Table) -> None:
    embedded = embed_tracks(model, decode(model, batch.slice(1, 1)))
    assert embedded["code"].to_pylist() == ["missing"]


class DeafModel:
    """A model whose vector of a silent window is zero: nothing a search could find."""

    def __init__(self, model: Model) -> None:
        self.spec = model.spec

    def embed_windows(self, windows: np.ndarray, scales: object) -> np.ndarray:
        return np.zeros((len(windows), self.spec.dim), np.float32)

    def pool(self, windows: np.ndarray) -> np.ndarray:
        return np.asarray(windows.mean(axis=0))


def test_a_vector_without_direction_is_a_failure(model: Model, batch: pa.Table) -> None:
    embedded = embed_tracks(DeafModel(model), decode(model, batch))  # type: ignore[arg-type]
    assert embedded["code"].to_pylist()[0] == "bad_vector"
    assert embedded["vector"].null_count == 5


HANGING = """
import sys, time
import pyarrow.parquet as pq
from raymtr import audio
from raymtr.embeddings.embed_tracks import decode_tracks
from raymtr.specs import EmbedSpec
from raymtr.tower_specs import AudioSpec

decode = audio.decode
audio.decode = lambda uri, *a, **k: time.sleep(60) if "short" in uri else decode(uri, *a, **k)
batch = pq.read_table(sys.argv[1])
embed = EmbedSpec(max_decode_s=4)  # a busy machine needs more than one for a good file
for row in decode_tracks(batch, spec=AudioSpec(), embed=embed, hung=sys.argv[2]):
    print(row["track_id"][0].as_py(), flush=True)
"""


@pytest.mark.slow
def test_a_decoder_that_hangs_costs_its_track_alone(
    model: Model, batch: pa.Table, tmp_path: Path
) -> None:
    pq.write_table(batch, tmp_path / "batch.parquet")
    hung = str(tmp_path / "hung")
    command = [sys.executable, "-c", HANGING, str(tmp_path / "batch.parquet"), hung]
    first = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (first.returncode, first.stdout.split()) == (1, ["long", "absent"])
    again = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (again.returncode, again.stdout.split()) == (0, batch["track_id"].to_pylist())
    rows = {row["track_id"]: row["code"] for row in decode(model, batch, hung=hung).to_pylist()}
    assert rows["short"] == "timeout"
    assert [rows["long"], rows["exact"]] == [None, None]


def test_silence_is_a_row_with_a_reason_and_a_silent_window_has_no_vector(
    model: Model, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    gap = 0.1 * rng.standard_normal(30 * RATE)
    gap[10 * RATE : 20 * RATE] = 0
    for name, samples in (("silent", np.zeros(5 * RATE)), ("gap", gap)):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE)
    names = ["silent", "gap"]
    uris = [str(tmp_path / f"{name}.wav") for name in names]
    nothing = pa.nulls(2, pa.string())
    batch = pa.table({"track_id": names, "uri": uris, "file_version": nothing})
    silent, heard = embed_tracks(model, decode(model, batch)).to_pylist()
    assert silent["code"] == "silent" and silent["vector"] is None
    assert heard["code"] is None and heard["starts_s"] == [0, 20]
    assert heard["seconds"] == 30.0 and heard["audio_digest"].startswith("1-")


def test_a_track_that_is_too_long_names_the_setting(model: Model, batch: pa.Table) -> None:
    (row,) = decode(model, batch.slice(0, 1), max_s=5.0).to_pylist()
    assert row["code"] == "too_long" and "embed.max_track_s" in row["reason"]


def test_packed_samples_are_half_the_size_and_give_the_same_vectors(
    model: Model, batch: pa.Table
) -> None:
    plain = decode(model, batch)
    rows = decode_tracks(
        batch, spec=model.spec.audio, embed=EmbedSpec(), hung="/absent", packed=True
    )
    packed = pa.concat_tables(rows)
    sizes = [len(samples.as_buffer()) for samples in packed["samples"] if samples.is_valid]
    assert [2 * size for size in sizes] == [
        len(samples.as_buffer()) for samples in plain["samples"] if samples.is_valid
    ]
    one, other = embed_tracks(model, plain), embed_tracks(model, packed)
    assert one["code"].to_pylist() == other["code"].to_pylist()
    for column in ("vector", "windows"):
        expected, found = (
            np.concatenate(table[column].drop_null().to_numpy()) for table in (one, other)
        )
        np.testing.assert_allclose(found, expected, atol=2e-4)
