"""A raymtr model on disk: one complete folder that needs no hub, package or other folder.

    config.json         format number, TowersSpec, provenance (source, licence)
    model.safetensors   float32 weights of both towers, heads and scale, a frozen tower included
    text_tower/         the text encoder's config and tokenizer (`clap/`: those of a CLAP)
    golden.json         vectors of a few fixed inputs, computed when it was saved (model.golden)
    trained_on.npy      what it was trained on, where that is known (raymtr.trained_on)

The folder is written under a temporary name beside its target and then renamed. So a reader never
sees a partial folder.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyarrow import fs
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from raymtr import storage
from raymtr.errors import InputError, UnusableError
from raymtr.model import music_coca
from raymtr.model.audio_forward import Towers
from raymtr.model.clap import KIND, PARTS, ClapTowers, blank_clap
from raymtr.model.golden import golden_vectors
from raymtr.model.identity import CONFIG, FORMAT, GOLDEN, WEIGHTS, damaged, read_config
from raymtr.model.music_coca import MusicCocaTowers
from raymtr.model.two_towers import (
    TEXT_PART,
    blank_audio_side,
    blank_text_side,
    blank_towers,
)
from raymtr.tower_specs import TowersSpec
from raymtr.trained_on import RECORD, Record, to_bytes
from raymtr.validation import from_dict, to_dict

KINDS = {ClapTowers: KIND, MusicCocaTowers: music_coca.KIND}  # in config.json; none of our own


def save_towers(
    towers: Towers,
    folder: str,
    *,
    provenance: Mapping[str, object] | None = None,
    trained_on: Record | None = None,
) -> None:
    """Write `towers` as a raymtr model at `folder`, a path or URI, atomically.

    `trained_on` is what they were trained on; None means unknown. An existing model is replaced.
    Raises InputError where `folder` has other content, UnusableError where the disk fails or the
    towers give vectors that are not finite.
    """
    try:
        if _is_something_else(folder):
            raise InputError(f"{folder} exists and is not a raymtr model; save to another folder")
        if storage.is_remote(folder):
            with tempfile.TemporaryDirectory() as partial:
                _write(towers, Path(partial), provenance or {}, trained_on)
                _upload(Path(partial), folder)
        else:
            place = Path(storage.local_path(folder)).absolute()
            _replace(towers, place, provenance or {}, trained_on)
    except (OSError, SafetensorError) as error:
        raise UnusableError(f"cannot save a model to {folder}: {error}") from error


def _is_something_else(folder: str) -> bool:
    if not storage.exists(folder) or storage.exists(f"{folder}/{CONFIG}"):
        return False
    return bool(storage.list_files(folder) or storage.list_folders(folder))


def _replace(
    towers: Towers, place: Path, provenance: Mapping[str, object], trained_on: Record | None
) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".partial", dir=place.parent))
    try:
        (partial / "new").mkdir()
        _write(towers, partial / "new", provenance, trained_on)
        if place.exists():
            place.rename(partial / "old")
        (partial / "new").rename(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _upload(source: Path, uri: str) -> None:
    """Copy to an object store, config.json last: without it the folder is not a model."""
    filesystem, path = storage.open_filesystem(uri)
    config = (source / CONFIG).read_bytes()
    (source / CONFIG).unlink()
    storage.delete(f"{uri}/{CONFIG}")
    fs.copy_files(str(source), path, fs.LocalFileSystem(), filesystem)
    storage.write_bytes(f"{uri}/{CONFIG}", config)


def _write(
    towers: Towers, folder: Path, provenance: Mapping[str, object], trained_on: Record | None
) -> None:
    weights = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in towers.state_dict().items()
    }
    save_file(weights, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors creates the file readable only by its owner
    towers.save_parts(folder)
    if trained_on is not None:
        (folder / RECORD).write_bytes(to_bytes(trained_on))
    config: dict[str, Any] = {"format": FORMAT, "model": to_dict(towers.spec)}
    if type(towers) in KINDS:
        config["kind"] = KINDS[type(towers)]
    config["provenance"] = dict(provenance)
    for name, document in ((CONFIG, config), (GOLDEN, golden_vectors(towers))):
        try:
            text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        except ValueError as error:
            raise UnusableError(
                "these towers give vectors that are not finite: they are not saved; train with a "
                "lower train.learning_rate"
            ) from error
        (folder / name).write_text(text + "\n", encoding="utf-8")


def read_towers(
    folder: Path, *, audio_only: bool = False, text_only: bool = False
) -> tuple[Towers, dict[str, Any], dict[str, Any]]:
    """The towers in a raymtr model folder, their provenance, and their golden vectors.

    With `audio_only` the text tower and the texts of the golden vectors are not read, with
    `text_only` the audio tower and the golden sounds; a CLAP or MusicCoCa is then read whole.
    Raises InputError where the folder is not raymtr's, UnusableError where it is damaged or was
    written by a newer raymtr.
    """
    config = read_config(folder)
    try:
        golden = json.loads((folder / GOLDEN).read_text(encoding="utf-8"))
        spec = from_dict(TowersSpec, config["model"])
        text_only = text_only and "kind" not in config
        left_out = "text_tower." if audio_only else "audio_tower." if text_only else None
        weights = _read_weights(folder, without=left_out)
        towers: Towers
        if config.get("kind") == music_coca.KIND:
            towers = MusicCocaTowers(weights)
        elif config.get("kind") == KIND:
            towers = blank_clap(folder / PARTS, audio_only=audio_only)
        elif audio_only:
            towers = blank_audio_side(
                spec, text_hidden=weights["text_projector.0.weight"].shape[-1]
            )
        elif text_only:
            towers = blank_text_side(spec, str(folder / TEXT_PART))
        else:
            towers = blank_towers(spec, str(folder / TEXT_PART))
        load_weights(towers, weights)
        if audio_only:
            golden |= {"texts": [], "text": []}
        if text_only:
            golden |= {"audio": [], "sounds": [], "sounds_bf16": None}
        return towers, config["provenance"], golden
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise damaged(folder, error) from error


def _read_weights(folder: Path, *, without: str | None = None) -> dict[str, Tensor]:
    """The tensors of a folder, except those whose names begin with `without`."""
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        names = [n for n in file.keys() if without is None or not n.startswith(without)]  # noqa: SIM118
        return {name: file.get_tensor(name) for name in names}


def load_weights(towers: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load all weights; none may be missing, unknown or of another shape.

    Raises ValueError that names the first few wrong keys.
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
