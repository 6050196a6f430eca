"""A Llama-family base model: its tokenizer, weights, identity, and LoRA.

Torch, transformers and peft, without Ray, so it runs on a bare GPU machine.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from raymtr import storage
from raymtr.caption_specs import FinetuneSpec
from raymtr.errors import InputError, UnusableError

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")  # suffixes of large files
WHOLE_HASH = 1 << 20  # bytes of a weight file that its identity covers: the list of tensors


def here(base: str, *, weights: bool = True) -> str:
    """`base` as a path this process can open; an object store's is copied to this machine."""
    if not storage.is_remote(base):
        return storage.local_path(base)
    if not storage.exists(f"{base}/config.json"):
        raise InputError(f"no model at {base!r} (no config.json); --base is a folder or a hub name")
    if weights:
        return storage.local_copy(base, last="config.json")
    return storage.local_copy(
        base, last="config.json", wanted=lambda name: not name.endswith(WEIGHTS)
    )


def load_tokenizer(base: str) -> PreTrainedTokenizerBase:
    """The tokenizer of `base` with a padding token. Raises InputError where there is none."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(here(base, weights=False))
    except (OSError, ValueError) as error:
        raise InputError(f"no tokenizer at {base!r}; --base is a folder or a hub name") from error
    if tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer of {base!r} has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_vocabulary(base: str, tokenizer: Any) -> None:
    """Raise InputError where `tokenizer` has more tokens than the weights of `base`."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(here(base, weights=False))
    except (OSError, ValueError) as error:
        raise InputError(
            f"no model at {base!r} (no config.json); --base is a folder or a hub name"
        ) from error
    rows = getattr(config, "vocab_size", None)
    if rows is not None and len(tokenizer) > rows:
        raise InputError(
            f"the tokenizer of {base!r} has {len(tokenizer)} tokens and its weights have {rows}: "
            "they belong to two models; use the tokenizer that came with the weights"
        )


def check_positions(base: str | None, spec: FinetuneSpec) -> None:
    """Raise InputError where `max_tokens` exceeds the positions of `base` (None: a toy)."""
    from transformers import AutoConfig

    most: int | None
    if base is None:
        most, limit = spec.toy.max_tokens, "finetune.toy.max_tokens"
    else:
        config = AutoConfig.from_pretrained(here(base, weights=False))
        most, limit = getattr(config, "max_position_embeddings", None), f"the base {base}"
    if most is not None and spec.max_tokens > most:
        raise InputError(
            f"finetune.max_tokens is at most the {most} positions of {limit}, got {spec.max_tokens}"
        )


def load_base(base: str, spec: FinetuneSpec) -> PreTrainedModel:
    """The causal language model at `base`, in 8 or 4 bit where `spec` says so.

    Raises InputError if it is not one, UnusableError if it cannot be quantized on this machine.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as progress_bars

    progress_bars.disable_progress_bar()
    options: dict[str, Any] = {"dtype": torch.float32}
    if spec.precision == "bf16":
        options["dtype"] = torch.bfloat16
    if spec.quantization != "none":
        options["quantization_config"] = _quantization(spec)
    try:
        model = AutoModelForCausalLM.from_pretrained(here(base), **options)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{base!r} is not a causal language model that can be read here ({error}); "
            "--base is a folder or a hub name"
        ) from error
    if not hasattr(model, "lm_head") or not hasattr(model, "model"):
        raise InputError(f"{type(model).__name__} is not of the Llama family; --base requires it")
    return model


def _quantization(spec: FinetuneSpec) -> BitsAndBytesConfig:
    import importlib.util

    from transformers import BitsAndBytesConfig

    if not torch.cuda.is_available() or importlib.util.find_spec("bitsandbytes") is None:
        raise UnusableError(
            f"finetune.quantization={spec.quantization} needs a GPU and the package bitsandbytes; "
            "install it there, or set finetune.quantization=none"
        )
    four = spec.quantization == "4bit"
    return BitsAndBytesConfig(
        load_in_4bit=four,
        load_in_8bit=not four,
        bnb_4bit_compute_dtype=torch.bfloat16 if spec.precision == "bf16" else torch.float32,
    )


def add_lora(model: PreTrainedModel, spec: FinetuneSpec) -> PreTrainedModel:
    """`model` frozen, with trainable low-rank pairs (Hu et al., arXiv 2106.09685).

    Raises InputError where a target is not a layer of the model.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if spec.quantization != "none":
        options = {"use_reentrant": False}  # recomputes dropped activations; DDP needs it
        model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs=options)
    targets = [name.strip() for name in spec.targets.split(",") if name.strip()]
    linear = {n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    absent = sorted(set(targets) - linear)
    if absent or not targets:
        raise InputError(
            f"finetune.targets: {absent or 'none'} not in this base; "
            f"its layers: {', '.join(sorted(linear))}"
        )
    layers = model.config.num_hidden_layers
    if spec.upper_layers > layers:
        raise InputError(
            f"finetune.upper_layers is at most the {layers} layers of this base, "
            f"got {spec.upper_layers}"
        )
    if spec.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})  # as DDP needs it
    torch.manual_seed(spec.seed)
    upper = range(layers - spec.upper_layers, layers) if spec.upper_layers else None
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=targets,
        layers_to_transform=list(upper) if upper else None,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def base_identity(base: str) -> str:
    """The identity of the weights in folder `base`, 16 hexadecimal digits; a hub name is returned.

    It covers the configuration, and the first MiB and the size of each weight file. So a base of 14
    GB is identified in a second, wherever it is stored. Weights that differ only after the first
    MiB are not distinguished.
    """
    if not is_folder(base):
        return base
    digest = hashlib.sha256()
    filesystem, path = storage.open_filesystem(base)
    for name in storage.list_files(base):
        if name == "config.json" or name.endswith((".safetensors", ".bin")):
            with filesystem.open_input_file(f"{path}/{name}") as file:
                digest.update(f"{name} {file.size()}\0".encode())
                digest.update(file.read(WHOLE_HASH))
    return digest.hexdigest()[:16]


def is_folder(base: str) -> bool:
    """Whether `base` is a folder, here or in an object store, and not a hub name."""
    return storage.is_remote(base) or os.path.isdir(storage.local_path(base))
