"""A raymtr model on disk: one folder that needs no hub, no package and no other folder.

    config.json         format number, TowersSpec, provenance (source, licence)
    model.safetensors   float32 weights of both towers, heads and scale, a frozen tower included
    text_tower/         the text encoder's config and tokenizer (`clap/`: those of a CLAP)
    golden.json         vectors of a few fixed inputs, computed in float32 when it was saved

The folder is written beside its place and renamed into it, so a reader sees all of it or none.
The golden vectors guard mel, towers, pooling and tokenizer at once: other hardware or another
library version that changes the meaning of a vector shows there first.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyarrow import fs
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from raymtr import storage
from raymtr.errors import InputError, UnusableError
from raymtr.model.clap import KIND, PARTS, ClapTowers, blank_clap
from raymtr.model.identity import CONFIG, FORMAT, GOLDEN, WEIGHTS, damaged, read_config
from raymtr.model.two_towers import TEXT_PART, TwoTowers, blank_audio_side, blank_towers
from raymtr.specs import AudioSpec, TowersSpec, from_dict, to_dict

Towers = TwoTowers | ClapTowers
GOLDEN_TEXTS = ("a slow piano ballad", "music track Blue by Nobody", "")


def save_towers(
    towers: Towers, folder: str, *, provenance: Mapping[str, Any] | None = None
) -> None:
    """Write `towers` as a raymtr model at `folder`, a path or URI, whole or not at all.

    A model that lies there already is replaced. Raises InputError where something else does, and
    UnusableError where the disk refuses.
    """
    try:
        if _is_something_else(folder):
            raise InputError(f"{folder} exists and is no raymtr model; save to another folder")
        if storage.is_remote(folder):
            with tempfile.TemporaryDirectory() as partial:
                _write(towers, Path(partial), provenance or {})
                _upload(Path(partial), folder)
        else:
            _replace(towers, Path(storage.local_path(folder)).absolute(), provenance or {})
    except (OSError, SafetensorError) as error:
        raise UnusableError(f"cannot save a model to {folder}: {error}") from error


def _is_something_else(folder: str) -> bool:
    if not storage.exists(folder) or storage.exists(f"{folder}/{CONFIG}"):
        return False
    return bool(storage.list_files(folder) or storage.list_folders(folder))


def _replace(towers: Towers, place: Path, provenance: Mapping[str, Any]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".partial", dir=place.parent))
    try:
        (partial / "new").mkdir()
        _write(towers, partial / "new", provenance)
        if place.exists():
            place.rename(partial / "old")
        (partial / "new").rename(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _upload(source: Path, uri: str) -> None:
    """Copy to an object store, config.json last: without it the folder is no model."""
    filesystem, path = storage.open_filesystem(uri)
    config = (source / CONFIG).read_bytes()
    (source / CONFIG).unlink()
    storage.delete(f"{uri}/{CONFIG}")
    fs.copy_files(str(source), path, fs.LocalFileSystem(), filesystem)
    storage.write_bytes(f"{uri}/{CONFIG}", config)


def _write(towers: Towers, folder: Path, provenance: Mapping[str, Any]) -> None:
    weights = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in towers.state_dict().items()
    }
    save_file(weights, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors makes it its owner's alone
    towers.save_parts(folder)
    config: dict[str, Any] = {"format": FORMAT, "model": to_dict(towers.spec)}
    if isinstance(towers, ClapTowers):
        config["kind"] = KIND
    config["provenance"] = dict(provenance)
    for name, document in ((CONFIG, config), (GOLDEN, golden_vectors(towers))):
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def read_towers(
    folder: Path, *, audio_only: bool = False
) -> tuple[Towers, dict[str, Any], dict[str, Any]]:
    """The towers in a raymtr model folder, their provenance, and their golden vectors.

    With `audio_only` the text tower is left unread, and so are the texts of the golden vectors.
    Raises InputError where the folder is somebody else's, UnusableError where it is damaged or was
    written by a newer raymtr.
    """
    config = read_config(folder)
    try:
        golden = json.loads((folder / GOLDEN).read_text(encoding="utf-8"))
        spec = from_dict(TowersSpec, config["model"])
        weights = _read_weights(folder, without="text_tower." if audio_only else None)
        towers: Towers
        if config.get("kind") == KIND:
            towers = blank_clap(folder / PARTS, audio_only=audio_only)
        elif audio_only:
            towers = blank_audio_side(spec, text_hidden=len(weights["text_projector.0.weight"]))
        else:
            towers = blank_towers(spec, str(folder / TEXT_PART))
        load_weights(towers, weights)
        if audio_only:
            golden |= {"texts": [], "text": []}
        return towers, config["provenance"], golden
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise damaged(folder, error) from error


def _read_weights(folder: Path, *, without: str | None = None) -> dict[str, Tensor]:
    """The tensors of a folder, but those whose names begin with `without`."""
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        names = [n for n in file.keys() if without is None or not n.startswith(without)]  # noqa: SIM118
        return {name: file.get_tensor(name) for name in names}


def load_weights(towers: Towers, weights: Mapping[str, Tensor]) -> None:
    """Load all weights, none missing, none left over, every shape right.

    Raises ValueError that names the first few keys at fault.
    """
    wanted = towers.state_dict()
    faults = [f"{name} is missing" for name in wanted if name not in weights]
    faults += [f"{name} is unknown" for name in weights if name not in wanted]
    faults += [
        f"{name} is {list(weights[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ValueError(f"weights do not fit the spec: {'; '.join(faults[:3])}{more}")
    towers.load_state_dict(dict(weights))


def golden_wave(spec: AudioSpec) -> np.ndarray:
    """The fixed waveform float32 [window_samples] behind a golden vector: a chord and a sweep."""
    seconds = np.arange(spec.window_samples) / spec.sample_rate
    chord = sum(np.sin(2 * math.pi * hz * seconds) for hz in (220.0, 277.18, 329.63))
    sweep = np.sin(2 * math.pi * (100.0 + 150.0 * seconds) * seconds)
    beat = 0.5 + 0.5 * np.cos(2 * math.pi * 2.0 * seconds)
    return np.asarray(0.1 * chord * beat + 0.2 * sweep, dtype=np.float32)


def golden_vectors(towers: Towers) -> dict[str, Any]:
    """Un-normalised vectors of the golden inputs, by the plain float32 forward on a CPU."""
    plain = copy.deepcopy(towers).cpu().eval()
    with torch.inference_mode():
        audio = plain.embed_audio(torch.from_numpy(golden_wave(plain.spec.audio))[None])[0]
        text = [plain.embed_text(**plain.tokenize([text]))[0] for text in GOLDEN_TEXTS]
    return {
        "texts": list(GOLDEN_TEXTS),
        "text": [vector.tolist() for vector in text],
        "audio": audio.tolist(),
    }
