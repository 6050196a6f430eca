"""The cache gives what the decoder gives, whoever fills it."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from raymtr.audio import AudioError, decode, random_clip
from raymtr.audio_cache import AudioCache
from raymtr.errors import InputError
from raymtr.specs import AudioSpec

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


def test_a_remote_folder_is_refused() -> None:
    with pytest.raises(InputError, match="local folder"):
        AudioCache("s3://bucket/cache", SPEC)


def _clip_sum(folder: str, track: str) -> float:
    clip = AudioCache(folder, SPEC).clip("noise", track, np.random.default_rng(3))
    return float(np.abs(clip).sum())


def test_many_processes_may_fill_at_once(track: str, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sums = pool.starmap(_clip_sum, [(str(tmp_path), track)] * 4)
    assert len(set(sums)) == 1
    assert os.listdir(AudioCache(str(tmp_path), SPEC).folder) == ["noise.npy"]
