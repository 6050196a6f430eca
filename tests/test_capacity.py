from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders import publish_catalog

from raymtr.audio_cache import BLOCK_S, WHOLE_S
from raymtr.capacity import (
    MEASURED,
    SLOW_MS,
    Wanted,
    parse_positive,
    parse_size,
    plan_capacity,
    tracks_within,
)
from raymtr.embeddings.store import find_embeddings
from raymtr.errors import InputError
from raymtr.tower_specs import AudioSpec
from raymtr.vectors import unit

BENCHMARKS = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
BENCHMARK = Wanted(tracks=10**6, hours=24, minutes_per_track=1 / 6)  # a window a track


def figure(pattern: str) -> float:
    """A number of the page of measurements."""
    found = re.search(pattern, " ".join(BENCHMARKS.read_text().split()))
    assert found, pattern
    return float(found[1])


def test_the_plan_for_a_million_is_what_was_measured() -> None:
    plan = plan_capacity(BENCHMARK, exact=False)
    words_s, rest_s = figure(r"words and names (\d+) s"), figure(r"tuning and gate (\d+) s")
    assert plan["build_hours"] * 3600 == pytest.approx(words_s + rest_s, rel=0.3)
    core_s = figure(r"tuning and gate \d+ s \((\d+) CPU-s\)")
    assert plan["build_core_hours"] * 3600 == pytest.approx(core_s, rel=0.3)
    in_tables = plan["disk_gb"]["all"] - plan["disk_gb"]["embeddings"]
    assert in_tables * 1000 == pytest.approx(figure(r"(\d+) MB on disk for 256 MB"), rel=0.3)
    assert plan["build_memory_gb"] == pytest.approx(
        figure(r"10\^6 .{1,300}? peak memory ([\d.]+) GB")
    )
    for kind, name in (("audio", "audio"), ("text", "text-like")):
        row = rf"\| {name} \| %s \| [\d.]+ / %s / [\d.]+ \| %s \|"
        cell, some = r"([\d.]+)", r"[\d.]+"
        assert plan["recall_at_10"][kind] == figure(row % (cell, some, some))
        assert plan["p95_ms"][kind] == pytest.approx(figure(row % (some, cell, some)), rel=0.3)
        assert plan["query_core_ms"][kind] == pytest.approx(
            figure(row % (some, some, cell)), rel=0.3
        )


def test_cores_encode_as_slowly_as_was_measured() -> None:
    """24 windows a track; the time that is left once the index is built."""
    plan = plan_capacity(Wanted(tracks=10**6, hours=24), exact=False)
    core_s = figure(r"and (\d+) ms of one core per window") / 1000
    assert plan["encode_cores"] == pytest.approx(
        24e6 * core_s / (plan["embed_hours"] * 3600), abs=1
    )


@pytest.mark.parametrize("tracks", [250_000, 2_000_000, 3_000_000])
def test_the_plan_grows_as_was_measured(tracks: int) -> None:
    plan = plan_capacity(Wanted(tracks=tracks, hours=24, minutes_per_track=1 / 6), exact=False)
    number = r"([\d.]+)"
    row = rf"\| {tracks:,} \| {number} s, {number} CPU-s \| {number} GB, {number} GB \|"
    found = re.search(row, BENCHMARKS.read_text())
    assert found, row
    in_tables = plan["disk_gb"]["all"] - plan["disk_gb"]["embeddings"]
    planned = [plan["build_hours"] * 3600, plan["build_core_hours"] * 3600, in_tables]
    seconds, core_s, gb, disk_gb = map(float, found.groups())
    assert planned == pytest.approx([seconds, core_s, disk_gb], rel=0.3)
    if tracks <= MEASURED.tracks:  # the table's larger builds had all rows in memory
        assert plan["build_memory_gb"] == pytest.approx(gb, rel=0.3)


def test_the_plan_for_ten_million_is_what_was_measured() -> None:
    plan = plan_capacity(Wanted(tracks=10**7, hours=99, minutes_per_track=1 / 6), exact=False)
    in_tables = plan["disk_gb"]["all"] - plan["disk_gb"]["embeddings"]
    number = r"([\d,.]+)"
    build = rf"10\^7 tracks in 64 partitions.{{0,200}}?{number} CPU-s"
    row = rf"{build}.{{0,80}}?{number} GB of memory, {number} GB of disk"
    found = re.search(row, BENCHMARKS.read_text(), re.DOTALL)
    assert found, row
    said = [float(group.replace(",", "")) for group in found.groups()]
    planned = [plan["build_core_hours"] * 3600, plan["build_memory_gb"], in_tables]
    assert planned == pytest.approx(said, rel=0.3)


@pytest.mark.slow
def test_the_disk_of_a_small_catalog_is_as_planned(
    make_workspace: Callable, commit_vectors: Callable
) -> None:
    count, windows, dim = 4_000, 3, 128
    rng = np.random.default_rng(0)
    rows = [
        {
            "track_id": f"t{n:08d}",
            "uri": f"/{n}.mp3",
            "title": f"Song {n % 701}",
            "artist": f"Artist {n % 199}",
            "tags": [f"genre {n % 40}", f"mood {n % 23}"],
        }
        for n in range(count)
    ]
    vectors = unit(rng.standard_normal((count, windows, dim)))
    workspace = make_workspace(rows)
    commit_vectors(workspace, {row["track_id"]: v for row, v in zip(rows, vectors, strict=True)})
    build = publish_catalog(workspace)

    def size_gb(folder: str) -> float:
        return sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()) / 1e9

    plan = plan_capacity(Wanted(tracks=count, hours=1, minutes_per_track=0.5), exact=True)
    assert plan["windows"] == build.rows["windows"]
    seen = {kind: size_gb(f"{workspace.db}/{kind}_{build.name}.lance") for kind in build.rows}
    assert plan["disk_gb"]["vectors"] == pytest.approx(seen["vectors"], rel=0.3)
    assert plan["disk_gb"]["windows"] == pytest.approx(seen["windows"], rel=0.3)
    in_tables = plan["disk_gb"]["all"] - plan["disk_gb"]["embeddings"]
    assert in_tables == pytest.approx(sum(seen.values()), rel=0.3)
    folders = [f"{find_embeddings(workspace).folder}/{kind}" for kind in ("tracks", "windows")]
    assert plan["disk_gb"]["embeddings"] == pytest.approx(sum(map(size_gb, folders)), rel=0.3)


def test_time_and_work_balance() -> None:
    slow = plan_capacity(Wanted(tracks=10**8, hours=168), exact=False)
    fast = plan_capacity(Wanted(tracks=10**8, hours=84), exact=False)
    assert slow["windows"] == 24 * 10**8
    assert slow["embed_hours"] + slow["build_hours"] == pytest.approx(168)
    assert fast["gpus"] > slow["gpus"] and fast["decode_cores"] > 2 * slow["decode_cores"]
    work = slow["audio_hours"] * MEASURED.decode_core_s_per_audio_s
    assert slow["decode_cores"] - 1 < work / slow["embed_hours"] <= slow["decode_cores"]
    assert any("neither is measured" in note for note in slow["notes"])


def test_exact_search_is_exact_and_holds_its_matrix() -> None:
    plan = plan_capacity(Wanted(tracks=100_000, hours=24), exact=True)
    assert plan["recall_at_10"] == {"audio": 1.0, "text": 1.0}
    assert plan["disk_gb"]["index"] == 0 and plan["serving_memory_gb"] > 100_000 * 512 / 1e9
    one = plan_capacity(Wanted(tracks=1, hours=0.5, minutes_per_track=0.01), exact=True)
    assert (one["windows"], one["gpus"], one["decode_cores"]) == (1, 1, 1)


def test_enough_table_shards_answer_in_time() -> None:
    for tracks in (10**7, 10**9):
        plan = plan_capacity(Wanted(tracks=tracks, hours=10_000), exact=False)
        parts = plan_capacity(
            Wanted(tracks=tracks // plan["table_shards"], hours=10_000), exact=False
        )
        assert max(parts["p95_ms"].values()) <= SLOW_MS
        assert plan["shard_memory_gb"] == pytest.approx(parts["serving_memory_gb"], rel=0.01)
        slow = max(plan["p95_ms"].values()) > SLOW_MS
        assert (
            (plan["table_shards"] > 1) == slow == any("search.shards" in n for n in plan["notes"])
        )


def test_hours_that_the_index_alone_takes_are_rejected() -> None:
    with pytest.raises(InputError, match=r"--hours 1 is too short: .* takes 31\.\d+ hours"):
        plan_capacity(Wanted(tracks=10**8, hours=1), exact=False)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("250000", 250_000),
        ("250k", 250_000),
        ("100M", 10**8),
        ("1.5b", 15 * 10**8),
        ("1,000", 1000),
    ],
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text, "--tracks") == size


@pytest.mark.parametrize("text", ["0", "-5", "100X", "", "1.5", "nan", "1e6", "9" * 400, "2000B"])
def test_other_sizes_are_rejected_with_what_is_accepted(text: str) -> None:
    with pytest.raises(InputError, match=r"--tracks .*250k, 100M or 1\.5B; got"):
        parse_size(text, "--tracks")


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "x", "", "1e308", "1000001"])
def test_hours_are_above_zero_and_no_more_than_anybody_has(text: str) -> None:
    with pytest.raises(InputError, match="--hours is a number above 0 and at most 1,000,000"):
        parse_positive(text, "--hours", most=10**6)


def test_a_bound_of_its_own_is_told() -> None:
    assert parse_size("1k", "--dim", most=100_000) == 1_000
    with pytest.raises(InputError, match="--dim is a whole number from 1 to 100K, such as 128"):
        parse_size("100001", "--dim", most=100_000)


@pytest.mark.parametrize(
    ("tracks", "dim", "exact", "gb"),
    [
        (60_000, 128, True, 0.61),
        (60_000, 1_024, True, 1.87),
        (50_000, 512, True, 1.08),
        (250_000, 512, False, 2.97),
        (250_000, 128, False, 1.6),
        (10_000_000, 128, False, 2.97),
    ],
)
def test_the_memory_of_a_build_grows_with_the_dimension_as_was_measured(
    tracks: int, dim: int, exact: bool, gb: float
) -> None:
    plan = plan_capacity(Wanted(tracks=tracks, hours=24, dim=dim), exact=exact)
    assert plan["build_memory_gb"] == pytest.approx(gb, rel=0.15)


def test_training_keeps_its_budget_and_decodes_the_rest() -> None:
    wanted = Wanted(tracks=1_000_000, hours=168, clips=25_000_000, cache_gib=50)
    plan = plan_capacity(wanted, exact=False)
    assert plan["train_audio_gb"] == pytest.approx(10_584), "10.6 MB a track of four minutes"
    assert plan["train_cache_gb"] == pytest.approx(50 * 2**30 / 1e9)
    checked = 1_000_000 * 240 * MEASURED.decode_core_s_per_audio_s / 3600
    again = 25_000_000 * 0.995 * 1.5 * MEASURED.block_core_s / 3600
    assert plan["train_decode_core_hours"] == pytest.approx(checked + again, rel=0.01)
    small = plan_capacity(
        dataclasses.replace(wanted, tracks=600, minutes_per_track=0.4), exact=True
    )
    assert small["train_cache_gb"] == small["train_audio_gb"] < 1
    assert small["train_decode_core_hours"] < 0.01, "all of it is kept"


def test_the_plan_knows_the_cache_it_speaks_of() -> None:
    spec = AudioSpec()
    assert (MEASURED.block_s, MEASURED.whole_s) == (BLOCK_S, WHOLE_S)
    assert MEASURED.decoded_bytes_per_s == 2 * spec.sample_rate
    assert MEASURED.window_s == spec.window_s


@pytest.mark.parametrize("dim", [128, 512])
def test_the_tracks_that_fit_a_memory_are_planned_with_it(dim: int) -> None:
    tracks = tracks_within(2.0, dim)
    plan = plan_capacity(Wanted(tracks=tracks, hours=1e5, dim=dim), exact=False)
    assert plan["build_memory_gb"] == pytest.approx(2.0, rel=0.01)
    assert tracks_within(0.5, dim) == 1
