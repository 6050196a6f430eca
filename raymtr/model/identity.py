"""What a saved model is, as far as that can be known without torch: its spec and its fingerprint.

A job's driver hands a model to its workers and needs no more of it than this. Importing torch for
it would be a fifth of all the CPU time that a job's start takes. The workers load the model, and
check that it is the one the driver meant.
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
from raymtr.specs import AudioSpec, Precision, TowersSpec, from_dict, to_dict

FORMAT = 1  # of a model folder; raised whenever an older raymtr could misread what is written
CONFIG, WEIGHTS, GOLDEN = "config.json", "model.safetensors", "golden.json"
AUDIO_SIDE = ("audio_tower.", "audio_projector.")  # weights that an audio vector is made with
# How a track is cut (audio.windows) and put together again: part of every fingerprint.
WINDOWS_AND_POOLING = "windows end to end, the last ends with the track; mean un-normalised"
MEL_VERSION = "slaney-log10-1"  # of model.log_mel
MUSICNN_VERSION = "musicnn-0.1.0-1"  # of model.musicnn, and of the heads over its tags


@dataclass(frozen=True)
class Identity:
    """Of a model that was not loaded what a loaded one says of itself as well."""

    spec: TowersSpec
    precision: Precision
    fingerprint: str


def read_identity(source: str, precision: Precision) -> Identity | None:
    """The identity of the two towers in raymtr's own folder `source`, on this machine.

    None for what has to be loaded to be known: a model of others, a CLAP, one in an object store.
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
            made = fingerprint_of(spec, precision, rules_of(spec), weights)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise damaged(folder, error) from error
    return Identity(spec, precision, made)


def rules_of(spec: TowersSpec) -> dict[str, Any]:
    """What an audio vector of two towers depends on beside weights, windows and `spec.audio`."""
    rules: dict[str, Any] = {"mel": MEL_VERSION, "heads": spec.audio_tower.heads}
    if spec.audio_tower.kind != "resnet":
        rules["tower"] = MUSICNN_VERSION
    if spec.heads != "linear":
        rules["joint"] = spec.heads
    return rules


def fingerprint_of(
    spec: TowersSpec,
    precision: Precision,
    rules: Mapping[str, Any],
    weights: Iterable[tuple[str, np.ndarray]],
) -> str:
    """12 hex digits that name what an audio vector was made with, and nothing else.

    Decoding, audio numbers, mel, windows, pooling, precision and the audio side's weights; not the
    text side, nor where the model lies. Of `weights` the others are left aside.
    """
    said = {
        "decoding": audio.DECODING,
        "audio": _numbers(spec.audio),
        "windows": WINDOWS_AND_POOLING,
        "precision": precision,
        **rules,
    }
    digest = hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=6)
    for name, array in sorted(weights, key=lambda pair: pair[0]):
        if name.startswith(AUDIO_SIDE) and not name.endswith("num_batches_tracked"):
            digest.update(f"{name}{list(array.shape)}".encode())
            digest.update(np.ascontiguousarray(array, np.float32).data)
    return digest.hexdigest()


def _numbers(spec: AudioSpec) -> dict[str, Any]:
    """The audio numbers; what older models did is left out, as they knew no such settings."""
    numbers = to_dict(spec)
    for name, before in (("level", "kept"), ("compression", "decades")):
        if numbers[name] == before:
            del numbers[name]
    return numbers


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a raymtr model folder.

    Raises InputError where the folder is somebody else's, UnusableError where it is damaged or was
    written by a newer raymtr.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(folder, error) from error
    written = config.get("format") if isinstance(config, dict) else None
    if not isinstance(written, int):
        raise InputError(f"{folder} is no raymtr model: its {CONFIG} states no format")
    if written > FORMAT:
        raise UnusableError(
            f"model {folder} has format {written}, this raymtr reads up to {FORMAT}; "
            "use the raymtr that wrote it, or a newer one"
        )
    return dict(config)


def damaged(folder: Path, error: Exception) -> UnusableError:
    """What to say of a folder that cannot be read."""
    return UnusableError(
        f"model {folder} is damaged ({type(error).__name__}: {error}); save or train it anew"
    )
