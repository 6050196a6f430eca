"""Loading a Model by path or name: raymtr's folders, the TTMR++ release, CLAP, MusicCoCa.

The release (Doh et al., ICASSP 2024; hub repo seungheondoh/ttmr-pp) is a flat yaml of numbers and a
torch checkpoint. Its parameters have CLIP's and RoBERTa's names, so loading replaces prefixes.
Every key must match, and no pickled code is ever run.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
import yaml
from pyarrow import fs
from torch import Tensor

from raymtr import storage
from raymtr.errors import InputError, UnusableError
from raymtr.model import music_coca
from raymtr.model.audio_forward import Towers
from raymtr.model.clap import KIND, read_clap_release
from raymtr.model.gate import require_apart
from raymtr.model.hub import cached_folder, download, require_hub
from raymtr.model.identity import CONFIG
from raymtr.model.model import Model
from raymtr.model.model_folder import load_weights, read_towers
from raymtr.model.musicnn_minilm import NAME, PROVENANCE, build_musicnn_minilm
from raymtr.model.two_towers import TwoTowers, blank_towers
from raymtr.tower_specs import AudioSpec, AudioTowerSpec, TextTowerSpec, TowersSpec
from raymtr.trained_on import read_record
from raymtr.validation import Precision

LOG = logging.getLogger("raymtr")


@dataclass(frozen=True)
class Published:
    """A third-party model on the hub."""

    repo: str
    files: tuple[str, ...]  # patterns of the repository's files to fetch
    licence: str
    subfolder: str = ""  # of the repository, where the model is


PUBLISHED = {
    "ttmrpp": Published(
        "seungheondoh/ttmr-pp",
        ("ttmrpp_resnet_roberta.pth", "ttmrpp_resnet_roberta.yaml"),
        "CC-BY-NC-4.0",
    ),
    "clap-general": Published(
        "laion/larger_clap_general",
        ("*.json", "merges.txt", "*.safetensors", "pytorch_model.bin"),
        "Apache-2.0",
    ),
    music_coca.KIND: Published(
        "google/magenta-realtime-2",
        tuple(f"resources/musiccoca/{file}" for file in music_coca.FILES.values()),
        "CC-BY-4.0 with Magenta RealTime's terms of use",
        "resources/musiccoca",
    ),
}
RELEASE_PREFIXES = {"audio_encoder.": "audio_tower.", "text_encoder.": "text_tower.encoder."}
ACCEPTED = (
    "a raymtr model folder, a TTMR++ release folder (.yaml and .pth), a folder of a transformers "
    f"ClapModel, MusicCoCa's files, or {', '.join(map(repr, (*PUBLISHED, NAME)))}"
)


def load_model(
    path: str | os.PathLike[str],
    *,
    precision: Precision = "fp32",
    normalize: bool = True,
    device: str = "cpu",
    audio_only: bool = False,
    text_only: bool = False,
) -> Model:
    """The model at `path`: a raymtr folder (or its URI), a release's folder, or a published name.

    The names are `ttmrpp`, `clap-general` and `musiccoca`, fetched from the hub once, and
    `musicnn-minilm`, built from pip packages without a hub. With `audio_only` a raymtr folder's
    text tower is not loaded, with `text_only` its audio tower. The model is then faster to load and
    smaller, cannot encode the other side, and cannot be saved; without an audio tower it has no
    fingerprint.

    Raises InputError where the path or an argument is wrong, UnusableError where the model is
    damaged, its text vectors are nearly equal, no hub answers, or the device does not exist.
    """
    name = os.fspath(path)
    if precision not in get_args(Precision):
        raise InputError(f"precision is {' or '.join(get_args(Precision))}, got {precision!r}")
    if audio_only and text_only:
        raise InputError("audio_only and text_only leave nothing to load; give one of them")
    golden: dict[str, Any] | None
    trained_on = None if name in PUBLISHED else read_record(name)
    if storage.is_remote(name):
        with tempfile.TemporaryDirectory() as copied:
            towers, provenance, golden = read_towers(
                _download(name, Path(copied)), audio_only=audio_only, text_only=text_only
            )
    elif name == NAME:
        towers, provenance, golden = build_musicnn_minilm(), PROVENANCE, None
    elif name in PUBLISHED:
        found = _fetch(name, PUBLISHED[name]) / PUBLISHED[name].subfolder
        towers, provenance, golden = _read(found, name)
        provenance = _provenance(name)
    else:
        folder = Path(storage.local_path(name))
        towers, provenance, golden = _read(folder, name, audio_only=audio_only, text_only=text_only)
    if provenance.get("licence"):
        LOG.warning("model %s: licence %s", provenance.get("source"), provenance["licence"])
    model = Model(
        towers,
        precision=precision,
        normalize=normalize,
        device=device,
        provenance=provenance,
        golden=golden,
        trained_on=trained_on,
    )
    if not audio_only:
        require_apart(model, name)
    return model


def _read(
    folder: Path, name: str, *, audio_only: bool = False, text_only: bool = False
) -> tuple[Towers, dict[str, Any], dict[str, Any] | None]:
    """Towers, provenance and golden vectors of `folder`, which was requested as `name`."""
    if name and (folder / CONFIG).is_file():
        if _is_clap(folder):
            return read_clap_release(folder), {"source": str(folder)}, None
        return read_towers(folder, audio_only=audio_only, text_only=text_only)
    if name and music_coca.is_release(folder):
        return music_coca.read_music_coca_release(folder), _provenance(music_coca.KIND), None
    if name and list(folder.glob("*.pth")):
        return read_release(folder), _provenance("ttmrpp"), None
    raise InputError(f"no model {name!r}; accepted: {ACCEPTED}")


def _provenance(name: str) -> dict[str, Any]:
    return {"source": PUBLISHED[name].repo, "licence": PUBLISHED[name].licence}


def _is_clap(folder: Path) -> bool:
    """Whether `transformers` saved a ClapModel in the folder."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # raymtr's own reader reports the fault
    return isinstance(config, dict) and config.get("model_type") == KIND


def read_release(folder: Path) -> TwoTowers:
    """The towers of a TTMR++ release folder: one yaml beside one checkpoint.

    Raises UnusableError where a file is missing or damaged, or a weight does not fit.
    """
    found = [sorted(folder.glob(pattern)) for pattern in ("*.yaml", "*.pth")]
    if [len(files) for files in found] != [1, 1]:
        seen = ", ".join(sorted(file.name for file in folder.iterdir()))
        raise UnusableError(f"a TTMR++ release is one .yaml and one .pth; {folder} has {seen}")
    (settings,), (checkpoint,) = found
    spec = read_release_spec(settings)
    text_folder = folder / spec.text_tower.source  # `text_arch` may be a folder beside the yaml
    towers = blank_towers(spec, str(text_folder) if text_folder.is_dir() else None)
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
        load_weights(towers, release_weights(state))
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UnusableError(
            f"{checkpoint} is damaged or not a TTMR++ checkpoint ({type(error).__name__}: "
            f"{reason}); fetch it again"
        ) from error
    return towers


def read_release_spec(file: Path) -> TowersSpec:
    """The release's flat yaml as a TowersSpec; `hop_size` in seconds is truncated to samples."""
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
        rate = int(given["sr"])
        return TowersSpec(
            audio=AudioSpec(
                sample_rate=rate,
                window_s=float(given["duration"]),
                n_fft=int(given["n_fft"]),
                hop=int(float(given["hop_size"]) * rate),  # 220.5 -> 220
                n_mels=int(given["n_mels"]),
            ),
            audio_tower=AudioTowerSpec(
                width=int(given["width"]),
                heads=int(given["n_heads"]),
                dim=int(given["audio_dim"]),
            ),
            text_tower=TextTowerSpec(
                source=str(given["text_arch"]), max_tokens=int(given["max_length"])
            ),
            dim=int(given["mlp_dim"]),
            temperature=float(given["temperature"]),
        )
    except (OSError, yaml.YAMLError, TypeError, ValueError, KeyError) as error:
        raise UnusableError(
            f"{file} is not a TTMR++ settings file ({type(error).__name__}: {error})"
        ) from error


def release_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The release's weights under our names.

    The release stores the scale twice, float64 [1]; one is kept. Raises ValueError where they
    differ.
    """
    weights: dict[str, Tensor] = {}
    for key, tensor in state.items():
        prefix = next((p for p in RELEASE_PREFIXES if key.startswith(p)), "")
        weights[RELEASE_PREFIXES.get(prefix, "") + key.removeprefix(prefix)] = tensor
    twin = weights.pop("loss_fct.logit_scale", None)
    scale = weights.get("logit_scale")
    if scale is not None:
        if twin is not None and not torch.equal(twin, scale):
            raise ValueError("logit_scale and loss_fct.logit_scale differ")
        weights["logit_scale"] = scale.reshape(()).float()
    return weights


def _fetch(name: str, published: Published) -> Path:
    """The folder of the published files, from the hub's cache on this machine or from the hub."""
    folder = cached_folder(published.repo, published.files)
    names = [file for file in published.files if "*" not in file]
    if folder and any((folder / file).is_file() for file in names):
        return folder
    require_hub(
        name,
        cure=f"run `raymtr fetch {name}` once where it answers, or give a folder with "
        f"{published.repo}'s files",
    )
    LOG.info("fetching %s (%s) from the hub", published.repo, published.licence)
    return download(published.repo, published.files)


def _download(uri: str, folder: Path) -> Path:
    """Copy the model folder at an object-store `uri` to `folder`."""
    if not storage.exists(f"{uri}/{CONFIG}"):
        raise InputError(f"no model {uri!r}; accepted: {ACCEPTED}")
    filesystem, path = storage.open_filesystem(uri)
    try:
        fs.copy_files(path, str(folder), filesystem, fs.LocalFileSystem())
    except OSError as error:
        raise UnusableError(f"cannot read model {uri}: {error}") from error
    return folder
