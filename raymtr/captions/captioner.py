"""A fine-tuned captioner in its folder, and the weights that its engines run.

A captioner is a PEFT adapter folder: the adapter's two files, `captioner.json` (base, prompt,
provenance) and, where raymtr trained the base too, the base itself in `base/`. It is always passed
by URI; each machine downloads what it runs.

The merged weights are built once, in the precision of caption writing, and stored beside the
workspace's captioner. Engines run them like any other model.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raymtr import storage
from raymtr.caption_specs import CaptionSpec, FinetuneSpec
from raymtr.captions.base_model import base_identity, is_folder, load_base, load_tokenizer
from raymtr.captions.prompt import prompt_hash
from raymtr.errors import InputError
from raymtr.validation import Precision

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FACTS, CONFIG, WEIGHTS = "captioner.json", "adapter_config.json", "adapter_model.safetensors"
VOCABULARY = "vocabulary.json"  # common tags of the pairs: musical terms that captions may use
SHARD = "2GB"  # of merged weights: extra memory while they are saved
BYTES = {"bf16": 2, "fp32": 4}  # per weight
STORED = {"float32": 4, "float64": 8}  # per weight of a base, by its config dtype; others have 2
TO_LOAD = 1 << 30  # bytes of a process with torch and transformers loaded


@dataclass(frozen=True)
class Captioner:
    """A captioner, checked against its base."""

    uri: str
    base: str  # a folder, its URI, or a hub name
    base_identity: str
    adapter: str  # hash of the adapter's weights
    vocabulary: tuple[str, ...]
    is_toy: bool = False  # whether its base was trained on the spot, beside it

    @property
    def identity(self) -> str:
        """16 hexadecimal digits that identify the base and adapter weights together."""
        return hashlib.sha256(f"{self.base_identity} {self.adapter}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Weights:
    """What an engine runs: a model by folder, URI or hub name, and an optional adapter."""

    model: str
    adapter: str | None = None


def open_captioner(uri: str) -> Captioner:
    """The captioner in the folder `uri`, local or remote; its base's weights are not copied.

    Raises InputError where there is none, where files are missing, where its base is not the one it
    was tuned on, or where it was trained on another prompt.
    """
    uri = uri.rstrip("/") if storage.is_remote(uri) else os.path.abspath(storage.local_path(uri))
    if not any(storage.exists(f"{uri}/{name}") for name in (CONFIG, WEIGHTS, FACTS)):
        raise InputError(f"no captioner in {uri} (no {CONFIG}); `raymtr finetune` trains one")
    for name in (CONFIG, WEIGHTS, FACTS):
        if not storage.exists(f"{uri}/{name}"):
            raise InputError(
                f"the captioner in {uri} is incomplete: it has no {name}. Probably `raymtr "
                "finetune` was stopped while it copied the files; run it again to continue"
            )
    facts = storage.read_json(f"{uri}/{FACTS}")
    base = facts["base"]
    if storage.exists(f"{uri}/{base}/config.json"):
        base = f"{uri}/{base}"
    found = base_identity(base)
    if found == base != facts["base_identity"]:  # a name, but it was tuned on a folder's weights
        raise InputError(
            f"the base of the captioner in {uri} is missing: {base} has no model; put it back, "
            f"or write the folder that it was moved to as `base` in {uri}/{FACTS}"
        )
    if found != facts["base_identity"]:
        raise InputError(
            f"the adapter in {uri} was tuned on base {facts['base_identity']}, but {base} is "
            f"{found}; put that base back, or run `raymtr finetune` on this one"
        )
    if facts["prompt"] != prompt_hash():
        raise InputError(
            f"the adapter in {uri} was trained with prompt {facts['prompt']}, this raymtr uses "
            f"{prompt_hash()}; run `raymtr finetune` again"
        )
    words = f"{uri}/{VOCABULARY}"
    return Captioner(
        uri=uri,
        base=base,
        base_identity=found,
        adapter=_checked_adapter(uri),
        vocabulary=tuple(storage.read_json(words)) if storage.exists(words) else (),
        is_toy=facts.get("toy", facts["base"] == "base"),
    )


def _checked_adapter(uri: str) -> str:
    """The adapter's hash. Raises InputError where the file is truncated or has no weights."""
    data = storage.read_bytes(f"{uri}/{WEIGHTS}")
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])  # safetensors begins with its list of tensors
        header.pop("__metadata__", None)
        ends = max(tensor["data_offsets"][1] for tensor in header.values())
        if 8 + size + ends != len(data):
            raise ValueError(f"{len(data)} bytes of {8 + size + ends}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"the captioner in {uri} is unusable: {WEIGHTS} is incomplete or has no weights "
            f"({error}); run `raymtr finetune` again"
        ) from error
    return _hash(data)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def adapter_identity(uri: str) -> str | None:
    """The adapter's hash in the folder `uri`, 16 hexadecimal digits; None where there is none."""
    if not storage.exists(f"{uri}/{WEIGHTS}"):
        return None
    return _hash(storage.read_bytes(f"{uri}/{WEIGHTS}"))


def adapter_here(uri: str) -> str:
    """A local folder with the adapter of the captioner `uri`."""
    return storage.local_copy(uri, last=CONFIG, wanted=lambda name: name in (CONFIG, WEIGHTS))


def load_weights(weights: Weights, precision: Precision) -> PreTrainedModel:
    """Load the model of `weights`. Raises InputError where the adapter does not fit the base."""
    model = load_base(weights.model, FinetuneSpec(precision=precision))
    if weights.adapter is None:
        return model
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, adapter_here(weights.adapter))
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError(
            f"the adapter in {weights.adapter} does not fit the base {weights.model}: {error}"
        ) from error


def planned_weights(captioner: Captioner, spec: CaptionSpec, *, home: str) -> Weights:
    """The weights for engines to run: the adapter on its base, or merged weights below `home`."""
    if spec.serve == "adapter":
        return Weights(captioner.base, captioner.uri)
    return Weights(f"{home}/merged/{captioner.identity}-{spec.precision}")


def is_merged(weights: Weights) -> bool:
    """Whether the weights exist, complete."""
    return weights.adapter is not None or storage.exists(f"{weights.model}/config.json")


def merge(captioner: Captioner, folder: str, precision: Precision) -> None:
    """Add the adapter to its base and save the result in `folder` atomically.

    Memory holds the weights once, in `precision`, and one shard of them. Raises InputError where
    the adapter does not fit the base, UnusableError where `folder` cannot be written.
    """
    adapted = load_weights(Weights(captioner.base, captioner.uri), precision)
    model = adapted.merge_and_unload()
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch, max_shard_size=SHARD)
        load_tokenizer(captioner.base).save_pretrained(scratch)
        storage.copy_folder(scratch, folder, last="config.json")


def bytes_to_merge(captioner: Captioner, precision: Precision) -> int:
    """Most memory that `merge` needs; 0 where the base is a hub name, whose size is unknown."""
    if not is_folder(captioner.base):
        return 0
    filesystem, path = storage.open_filesystem(captioner.base)
    names = [n for n in storage.list_files(captioner.base) if n.endswith((".safetensors", ".bin"))]
    stored = sum(filesystem.get_file_info(f"{path}/{name}").size for name in names)
    config = json.loads(storage.read_bytes(f"{captioner.base}/config.json"))
    kind = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    weights = stored * BYTES[precision] // STORED.get(kind, 2)
    return int(1.25 * weights) + TO_LOAD
