"""Identity of a saved model, read without torch: its spec and its fingerprint.

A job's driver only passes a model to its workers and needs nothing else. Importing torch would take
a fifth of the CPU time of a job's start. The workers load the model and check that its fingerprint
matches the driver's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from raymtr import audio, storage
from raymtr.errors import InputError, UnusableError
from raymtr.tower_specs import MUSICNN_DIM, AudioSpec, TowersSpec
from raymtr.validation import Precision, from_dict, to_dict

FORMAT = 1  # version of the model folder; raised when an older raymtr could misread the new one
CONFIG, WEIGHTS, GOLDEN = "config.json", "model.safetensors", "golden.json"
# The weights behind an audio vector.
AUDIO_SIDE = ("audio_tower.", "audio_projector.", "window_attention.")
# How a track is cut into windows (audio.windows) and pooled: part of every fingerprint.
WINDOWS_AND_POOLING = "windows end to end, the last ends with the track; mean un-normalised"
MEL_VERSION = "slaney-log10-1"  # of model.log_mel
SEMITONES_VERSION = "equal-temperament-1"  # of model.semitones
MUSICNN_VERSION = "musicnn-0.1.0-2"  # of model.musicnn, and of the heads over its tags


@dataclass(frozen=True)
class Identity:
    """Spec, precision and fingerprint of a model that is not loaded, named as in a Model."""

    spec: TowersSpec
    precision: Precision
    fingerprint: str


def read_identity(source: str, precision: Precision) -> Identity | None:
    """The identity of the two towers in raymtr's own folder `source`, on this machine.

    None for a model that must be loaded first: a third-party model, a CLAP, one in an object store.
    Raises InputError or UnusableError where the folder is damaged or newer than this raymtr.
    """
    if storage.is_remote(source):
        return None
    folder = Path(storage.local_path(source))
    if not (folder / GOLDEN).is_file() or "kind" in (config := read_config(folder)):
        return None
    try:
        spec = from_dict(TowersSpec, config["model"])
        with safe_open(folder / WEIGHTS, framework="np") as file:
            names = [name for name in file.keys() if name.startswith(AUDIO_SIDE)]  # noqa: SIM118
            weights = ((name, file.get_tensor(name)) for name in names)
            fingerprint = fingerprint_of(spec, precision, rules_of(spec), weights)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise damaged(folder, error) from error
    return Identity(spec, precision, fingerprint)


def rules_of(spec: TowersSpec) -> dict[str, Any]:
    """The settings, beside weights, windows and `spec.audio`, that an audio vector depends on."""
    rules: dict[str, Any] = {"mel": MEL_VERSION, "heads": spec.audio_tower.heads}
    if spec.audio_tower.kind == "ast":
        rules["tower"] = f"ast, stride {spec.audio_tower.stride}"
    elif spec.audio_tower.kind in MUSICNN_DIM:
        rules["tower"] = MUSICNN_VERSION
    else:
        if spec.audio_tower.band_input:
            rules["tower"] = "resnet, bands normalised and placed"
        if spec.audio_tower.band_statistics:
            rules["statistics"] = "mean, deviation, deviation of differences"
        if spec.audio_tower.tempogram:
            rules["tempogram"] = "onsets of three groups of bands, 128 lags"
        if spec.audio.semitones:
            rules["semitones"] = SEMITONES_VERSION
    if spec.window_pooling != "mean":
        rules["pooling"] = spec.window_pooling
    if spec.heads != "linear":
        rules["joint"] = spec.heads
    return rules


def fingerprint_of(
    spec: TowersSpec,
    precision: Precision,
    rules: Mapping[str, Any],
    weights: Iterable[tuple[str, np.ndarray]],
) -> str:
    """12 hex digits that identify everything an audio vector was computed with.

    They cover decoding, audio settings, mel, windows, pooling, precision and the audio side's
    weights. They do not cover the text side or the model's location. Other entries of `weights` are
    ignored.
    """
    facts = {
        "decoding": audio.DECODING,
        "audio": _numbers(spec.audio),
        "windows": WINDOWS_AND_POOLING,
        "precision": precision,
        **rules,
    }
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=6)
    for name, array in sorted(weights, key=lambda pair: pair[0]):
        if name.startswith(AUDIO_SIDE) and not name.endswith("num_batches_tracked"):
            digest.update(f"{name}{list(array.shape)}".encode())
            digest.update(np.ascontiguousarray(array, np.float32).data)
    return digest.hexdigest()


def _numbers(spec: AudioSpec) -> dict[str, Any]:
    """The audio settings; defaults are left out where older models had no such setting."""
    numbers = to_dict(spec)
    older = {"level": "kept", "compression": "decades", "semitones": False}
    for name, before in older.items():
        if numbers[name] == before:
            del numbers[name]
    return numbers


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a raymtr model folder.

    Raises InputError where the folder is not raymtr's, UnusableError where it is damaged or was
    written by a newer raymtr.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(folder, error) from error
    written = config.get("format") if isinstance(config, dict) else None
    if not isinstance(written, int):
        raise InputError(f"{folder} is not a raymtr model: its {CONFIG} states no format")
    if written > FORMAT:
        raise UnusableError(
            f"model {folder} has format {written}, this raymtr reads up to {FORMAT}; "
            "use the raymtr that wrote it, or a newer one"
        )
    return dict(config)


def damaged(folder: Path, error: Exception) -> UnusableError:
    """The error for a folder that cannot be read."""
    return UnusableError(
        f"model {folder} is damaged ({type(error).__name__}: {error}); save or train it again"
    )
