"""The cache gives what the decoder gives, whoever fills it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from raymtr.audio import AudioError, decode, random_clip
from raymtr.audio_cache import BLOCK_S, LEDGER, WHOLE_S, AudioCache
from raymtr.errors import InputError
from raymtr.tower_specs import AudioSpec

SPEC = AudioSpec(window_s=1.0)


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("tracks") / "noise.flac"
    sf.write(path, rng.uniform(-0.4, 0.4, (5 * 44_100, 2)), 44_100)
    return str(path)


def test_clips_are_those_of_the_decoder(track: str, tmp_path: Path) -> None:
    cache = AudioCache(str(tmp_path), SPEC)
    for seed in range(5):
        cached = cache.clip("noise", track, np.random.default_rng(seed))
        direct = random_clip(track, SPEC, np.random.default_rng(seed))
        assert cached.dtype == np.float32 and cached.shape == (SPEC.window_samples,)
        assert np.abs(cached - direct).max() <= 0.51 / 32767 + 1e-6
        cached *= 0  # a clip is the caller's own


def test_a_filled_track_needs_its_file_no_more(track: str, tmp_path: Path) -> None:
    cache = AudioCache(f"file://{tmp_path}", SPEC)
    cache.fill("noise", track)
    cache.fill("noise", "/absent.flac")
    assert cache.clip("noise", "/absent.flac", np.random.default_rng(0)).any()
    stored = np.load(Path(cache.folder) / "noise.npy")
    assert stored.dtype == np.int16 and len(stored) == len(decode(track, SPEC).samples)


def test_each_decoding_has_its_own_folder(track: str, tmp_path: Path) -> None:
    other = AudioSpec(sample_rate=16_000, window_s=1.0)
    caches = [AudioCache(str(tmp_path), spec) for spec in (SPEC, other)]
    clips = [cache.clip("noise", track, np.random.default_rng(0)) for cache in caches]
    assert [len(clip) for clip in clips] == [22_050, 16_000]
    assert caches[0].folder != caches[1].folder


def test_loud_samples_are_clipped_and_do_not_wrap(tmp_path: Path) -> None:
    loud = np.tile(np.array([3.0, -3.0, 1.0, -1.0, 0.25], np.float32), 22_050)
    sf.write(tmp_path / "loud.wav", loud, 22_050, subtype="FLOAT")
    clip = AudioCache(str(tmp_path), SPEC).clip(
        "loud", str(tmp_path / "loud.wav"), np.random.default_rng(0)
    )
    assert set(np.round(clip, 2)) == {1.0, -1.0, 0.25}


def test_short_tracks_are_repeated(tmp_path: Path) -> None:
    short = np.random.default_rng(0).uniform(-0.5, 0.5, 5_000).astype(np.float32)
    sf.write(tmp_path / "short.wav", short, 22_050, subtype="FLOAT")
    clip = AudioCache(str(tmp_path), SPEC).clip(
        "short", str(tmp_path / "short.wav"), np.random.default_rng(0)
    )
    assert np.abs(clip - np.resize(short, 22_050)).max() < 1e-4


def test_a_bad_track_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = AudioCache(str(tmp_path / "cache"), SPEC)
    for uri, code in ((str(tmp_path / "absent.mp3"), "missing"), (str(tmp_path), "not_audio")):
        with pytest.raises(AudioError) as error:
            cache.clip("bad", uri, np.random.default_rng(0))
        assert error.value.code == code
    assert not os.path.exists(cache.folder)


def test_limits_apply(track: str, tmp_path: Path) -> None:
    cache = AudioCache(str(tmp_path), SPEC)
    with pytest.raises(AudioError) as error:
        cache.fill("noise", track, max_s=3)
    assert error.value.code == "too_long"


def test_ids_cannot_leave_the_folder(track: str, tmp_path: Path) -> None:
    cache = AudioCache(str(tmp_path / "cache"), SPEC)
    for track_id in ("../outside", "a/b", "..", "%2e", "ünï"):
        cache.fill(track_id, track)
    assert len(os.listdir(cache.folder)) == 5
    assert os.listdir(tmp_path) == ["cache"]


def test_a_remote_folder_is_rejected() -> None:
    with pytest.raises(InputError, match="local folder"):
        AudioCache("s3://bucket/cache", SPEC)


def _clip_sum(folder: str, track: str) -> float:
    clip = AudioCache(folder, SPEC).clip("noise", track, np.random.default_rng(3))
    return float(np.abs(clip).sum())


@pytest.mark.slow
def test_many_processes_may_fill_at_once(track: str, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sums = pool.starmap(_clip_sum, [(str(tmp_path), track)] * 4)
    assert len(set(sums)) == 1
    assert os.listdir(AudioCache(str(tmp_path), SPEC).folder) == ["noise.npy"]


# ---- long tracks, and a budget ---------------------------------------------------------------

SIZE = 2 * 22_050 + 128  # bytes of a cached track of one second


def clip_bytes(cache: AudioCache, key: str, uri: str, seed: int, samples: int | None) -> bytes:
    return cache.clip(key, uri, np.random.default_rng(seed), samples=samples).tobytes()


def held(cache: AudioCache) -> dict[str, int]:
    if not os.path.isdir(cache.folder):
        return {}
    return {name: os.path.getsize(f"{cache.folder}/{name}") for name in os.listdir(cache.folder)}


@pytest.fixture(scope="module")
def long_track(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Noise that is resampled: a span of it is no slice of the whole, to the last bit."""
    rng = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("long") / "long.flac"
    sf.write(path, rng.uniform(-0.4, 0.4, (WHOLE_S + 7) * 16_000), 16_000)
    return str(path)


@pytest.fixture(scope="module")
def short_tracks(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("short")
    rng = np.random.default_rng(2)
    for n in range(12):
        sf.write(folder / f"{n}.wav", rng.uniform(-0.4, 0.4, 22_050), 22_050)
    return [str(folder / f"{n}.wav") for n in range(12)]


def test_a_clip_of_a_long_track_does_not_depend_on_what_is_kept(
    long_track: str, tmp_path: Path
) -> None:
    keeps, none = AudioCache(str(tmp_path / "a"), SPEC), AudioCache("/none", SPEC, budget=0)
    samples = keeps.fill("long", long_track)
    assert samples == len(decode(long_track, SPEC).samples) and not held(keeps)
    seeds = range(12)
    first = [clip_bytes(keeps, "long", long_track, seed, samples) for seed in seeds]
    blocks = held(keeps)
    assert 1 < len(blocks) <= -(-(WHOLE_S + 7) // BLOCK_S)
    assert max(blocks.values()) == BLOCK_S * 22_050 * 2 + 128
    again = [clip_bytes(keeps, "long", "/gone.flac", seed, samples) for seed in seeds]
    never = [clip_bytes(none, "long", long_track, seed, samples) for seed in seeds]
    assert first == again == never
    for seed in seeds:
        near = random_clip(long_track, SPEC, np.random.default_rng(seed))
        clip = np.frombuffer(first[seed], np.float32)
        assert np.abs(clip - near).max() <= 1.01 / 32767 + 1e-6


def test_a_budget_is_kept_and_changes_no_clip(
    short_tracks: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unbounded = AudioCache(str(tmp_path / "all"), SPEC)
    bounded = AudioCache(str(tmp_path / "some"), SPEC, budget=5 * SIZE + 100)
    with caplog.at_level(logging.INFO, "raymtr"):
        for round_ in range(3):
            for n, uri in enumerate(short_tracks):
                wanted = clip_bytes(unbounded, str(n), uri, round_, 22_050)
                assert clip_bytes(bounded, str(n), uri, round_, 22_050) == wanted
    assert len(held(unbounded)) == 12
    assert sorted(held(bounded)) == [f"{n}.npy" for n in range(5)], "the first stay"
    assert caplog.text.count("other audio is decoded again") == 1, "said, and once"


def _fill_all(folder: str, budget: int, uris: list[str]) -> None:
    cache = AudioCache(folder, SPEC, budget=budget)
    for n, uri in enumerate(uris):
        cache.fill(f"{os.getpid()}-{n}", uri)


@pytest.mark.slow
def test_many_processes_keep_one_budget(short_tracks: list[str], tmp_path: Path) -> None:
    budget = 9 * SIZE + 100
    jobs = [(str(tmp_path), budget, short_tracks)] * 3
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.starmap(_fill_all, jobs, chunksize=1)
    sizes = held(AudioCache(str(tmp_path), SPEC))
    assert len(sizes) == 9 and sum(sizes.values()) == int((tmp_path / LEDGER).read_text())


def test_a_new_run_makes_room_where_it_is_short(short_tracks: list[str], tmp_path: Path) -> None:
    cache = AudioCache(str(tmp_path), SPEC, budget=6 * SIZE + 100)
    for n in range(6):
        cache.fill(f"{n}", short_tracks[n])
        os.utime(f"{cache.folder}/{n}.npy", (n, n))
    cache.make_room(["0", "9"], need=2 * SIZE)
    assert sorted(held(cache)) == ["0.npy", "2.npy", "3.npy", "4.npy", "5.npy"], "the oldest went"
    cache.make_room(["0"], need=SIZE)
    assert len(held(cache)) == 5, "there is room: nothing goes"
    (tmp_path / LEDGER).write_text("999999999")  # as after a crash between count and file
    cache.make_room(["0", "9"], need=2 * SIZE)
    cache.fill("9", short_tracks[9])
    assert "9.npy" in held(cache), "counted anew"
    AudioCache(str(tmp_path), SPEC, budget=SIZE + 100).make_room(["0", "9"], need=2 * SIZE)
    assert sorted(held(cache)) == ["9.npy"], "a lower budget holds for its own as well"


def test_a_disk_that_rejects_is_said_once_and_training_continues(
    short_tracks: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = AudioCache(str(tmp_path), SPEC, budget=1 << 40)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, before[1]))  # as if the disk were full
    try:
        with caplog.at_level(logging.INFO, "raymtr"):
            clips = [clip_bytes(cache, uri, uri, 0, 22_050) for uri in short_tracks[:3]]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caplog.text.count("File too large") == 1 and not held(cache)
    assert clips == [clip_bytes(cache, uri, uri, 0, 22_050) for uri in short_tracks[:3]]
