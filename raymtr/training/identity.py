"""Identity of a training: settings, data, library. Only the same training may be resumed.

A run's folder keeps it in `run.json`. Resuming under other settings would give weights that no
settings describe, so it is refused with a list of the differences. Only what affects learning
counts. Another number of workers draws the same batches, so it may resume.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import torch

from raymtr import storage
from raymtr.errors import InputError
from raymtr.specs import Settings
from raymtr.training.tracks import content_hash
from raymtr.validation import to_dict

HOW_IT_RUNS = frozenset(  # settings that may differ: they change the weights by rounding at most
    f"train.{name}"
    for name in (
        "workers",
        "min_workers",
        "use_gpu",
        "keep_checkpoints",
        "validate_every",
        "cache_gib",
        "cache_folder",
        "checkpoint_activations",
    )
)
OLDER_DEFAULTS = {  # behaviour of runs older than the setting
    "towers.audio.level": "kept",
    "towers.audio.semitones": False,
    "towers.audio_tower.weights": "packaged",
    "towers.audio_tower.band_input": False,
    "towers.audio_tower.band_statistics": False,
    "towers.audio_tower.tempogram": False,
    "towers.window_pooling": "mean",
    "train.windows": 1,
    "train.texts": {},
    "train.text_filter": False,
    "train.false_negatives": "kept",
    "train.gain_db": 0.0,
    "train.overdrive_db": 0.0,
    "train.chunk": 0,
    "train.layer_decay": 1.0,
    "train.text_rate": 1.0,
    "train.lora_audio": 0,
    "train.lora_text": 0,
    "train.objective": "contrastive",
    "train.schedule": "cosine",
    "train.beta2": 0.999,
}
FREE_KEYS = ("mixture", "texts")
CHECKPOINT = "checkpoint_"  # prefix of a checkpoint folder's name, before the number of steps done


def identity_of(settings: Settings, tracks: pa.Table) -> dict[str, object]:
    """Dotted settings, the tracks' content and torch's version: flat, JSON, comparable."""
    train = _flat("train", to_dict(settings.train))
    objective = settings.train.objective
    groups = {"mulap": ("towers", "mulap"), "musiclm": ("tokens", "musiclm")}
    spec = to_dict(settings)
    described: dict[str, object] = {}
    for group in groups.get(objective, ("towers",)):
        described |= _flat(group, spec[group])
    return {
        **described,
        **{key: value for key, value in train.items() if key not in HOW_IT_RUNS},
        "tracks": content_hash(tracks),
        "torch": torch.__version__,
    }


def may_resume(folder: str, identity: dict[str, object]) -> bool:
    """Whether the run in `folder` is to be resumed; False where there is none yet.

    A run with another identity and no checkpoint is removed: nothing is lost. With a checkpoint,
    InputError is raised and names the differences. A key that only one side has comes from another
    version and is ignored.
    """
    if not storage.exists(f"{folder}/run.json"):
        return False
    before = OLDER_DEFAULTS | storage.read_json(f"{folder}/run.json")
    differing = [
        f"{key} was {before[key]!r} and is {identity[key]!r}"
        for key in sorted(before.keys() & identity.keys())
        if before[key] != identity[key]
    ]
    if not differing:
        return True
    if any(name.startswith(CHECKPOINT) for name in storage.list_folders(folder)):
        raise InputError(
            f"run {folder} is another training: {'; '.join(differing)}. "
            "Give another --run, or the same settings and catalog to continue this one"
        )
    storage.delete(folder)
    return False


def _flat(prefix: str, tree: Mapping[str, object]) -> dict[str, object]:
    """Nested settings by dotted path; a group with free keys stays one value."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        name = f"{prefix}.{key}"
        flat.update(
            _flat(name, value)
            if isinstance(value, dict) and key not in FREE_KEYS
            else {name: value}
        )
    return flat
