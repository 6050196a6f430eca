"""Model: text and recordings to vectors, for jobs, the service and notebooks.

`encode_text` and `encode_audio` return arrays of the same shape. Below them is `embed_windows`, the
hot path of the embedding job. A vector never depends on other inputs. An audio forward always runs
in one shape: the device's batch of windows, the last one padded. Texts are batched with others of
the same length, so no padding is computed. The Model knows no files on disk, no tables and no Ray.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from raymtr import audio
from raymtr.audio import Sound, decode_sound
from raymtr.errors import InputError, UnusableError
from raymtr.model.audio_forward import AudioForward, Towers, compute_dtype
from raymtr.model.exact import exact_float32
from raymtr.model.golden import LEAST_COSINE, cosines, golden_sounds, pinned_audio
from raymtr.model.identity import fingerprint_of
from raymtr.model.model_folder import save_towers
from raymtr.model.music_coca import MusicCocaTowers
from raymtr.model.two_towers import NoAudioTower
from raymtr.tower_specs import MUSICNN_DIM, TowersSpec
from raymtr.trained_on import Record
from raymtr.validation import Precision
from raymtr.vectors import unit

TEXTS_AT_ONCE = {"cpu": 16, "cuda": 256}
LEAST_COSINE_INT8 = 0.98  # least mean text cosine after quantize_text
Side = Literal["audio", "text"]
SIDES: tuple[Side, ...] = ("audio", "text")


class Model:
    """Two towers ready to embed, on one device, in one precision.

    With `normalize=False` all methods return un-normalised vectors, as TTMR++ publishes them.
    `towers` stay float32 on the CPU: `save` writes them and the fingerprint names them.
    """

    def __init__(
        self,
        towers: Towers,
        *,
        precision: Precision = "fp32",
        normalize: bool = True,
        device: str = "cpu",
        provenance: Mapping[str, Any] | None = None,
        golden: Mapping[str, Any] | None = None,
        trained_on: Record | None = None,
    ) -> None:
        self.towers = towers.eval()
        self.precision = precision
        self.normalize = normalize
        self.device = open_device(device)
        if isinstance(towers, MusicCocaTowers) and (precision, self.device.type) != ("fp32", "cpu"):
            raise InputError(
                f"MusicCoCa runs in fp32 on a CPU, got precision={precision}, device={device}"
            )
        self.provenance = dict(provenance or {})
        self.trained_on = trained_on
        self._golden = golden
        self._least_text_cosine = LEAST_COSINE[precision]
        self._tokenizing = threading.Lock()  # a fast tokenizer keeps its padding settings as state

    @property
    def spec(self) -> TowersSpec:
        """The spec of the towers and their audio input."""
        return self.towers.spec

    def encode_text(self, sentences: Sequence[str]) -> np.ndarray:
        """One row for each sentence, float32 [N, D]; tokens beyond max_tokens are cut off.

        Raises InputError on a bare string or on a list item that is not a string.
        """
        sentences = _listed(sentences, "encode_text", "sentences")
        for sentence in sentences:
            if not isinstance(sentence, str):
                raise InputError(
                    f"encode_text takes strings, got {type(sentence).__name__}: {sentence!r:.80}"
                )
        vectors = np.empty((len(sentences), self.spec.dim), dtype=np.float32)
        with self._tokenizing:
            tokens = self.towers.text_tower.token_ids(sentences)
        for rows in _alike([len(ids) for ids in tokens], TEXTS_AT_ONCE[self.device.type]):
            vectors[rows] = self._embed_tokens(torch.tensor([tokens[row] for row in rows]))
        return self._finish(vectors)

    def unread(self, sentences: Sequence[str]) -> tuple[str, ...]:
        """A warning where sentences exceed the text tower's max_tokens; else an empty tuple."""
        tower = self.towers.text_tower
        if all(
            len(sentence.encode("utf-8", "replace")) < tower.spec.max_tokens - 1
            for sentence in sentences
        ):
            return ()  # a token has at least one byte
        with self._tokenizing:
            longest = max(tower.lengths(list(sentences)), default=0)
        if longest <= tower.spec.max_tokens:
            return ()
        return (
            f"this model reads {tower.spec.max_tokens} tokens of a text: of {longest} the last "
            f"{longest - tower.spec.max_tokens} were not read",
        )

    def encode_audio(self, sources: Sequence[Sound]) -> np.ndarray:
        """One row for each recording, float32 [N, D], pooled from its windows (`pool`).

        A source is a path, a URI, the bytes of a file, or `(samples, rate)`. Raises
        `audio.AudioError`, naming the source, on what cannot be decoded.
        """
        sources = [
            audio.check_sound(source) for source in _listed(sources, "encode_audio", "recordings")
        ]
        vectors = np.empty((len(sources), self.spec.dim), dtype=np.float32)
        for row, source in enumerate(sources):
            vectors[row] = self.pool(self.embed_windows(self._windows(source)[1]))
        return self._finish(vectors)

    def audio_windows(self, source: Sound) -> tuple[np.ndarray, np.ndarray]:
        """`(start_s float64 [W], embeddings float32 [W, D])` of one recording's windows."""
        starts, windows = self._windows(audio.check_sound(source))
        return starts, self._finish(self.embed_windows(windows))

    def pool(self, windows: np.ndarray) -> np.ndarray:
        """Un-normalised window vectors of one track [W, D] -> its un-normalised vector [D]."""
        attention = getattr(self.towers, "window_attention", None)
        if attention is None:
            return np.asarray(windows.mean(axis=0))
        with torch.inference_mode():
            return np.asarray(attention(torch.from_numpy(windows)[None])[0].numpy())

    def embed_windows(self, windows: np.ndarray, scales: np.ndarray | None = None) -> np.ndarray:
        """float32 windows [W, window_samples] -> float32 **un-normalised** [W, D].

        With `scales` float32 [W] the windows are int16, each to be multiplied by its scale. A row
        is byte-equal with any other rows.
        """
        if not np.size(windows):
            return np.empty((0, self.spec.dim), np.float32)
        return self._audio_forward(self._checked(windows, scales), scales)

    def embed_with_features(
        self, windows: np.ndarray, scales: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `embed_windows`, with the audio tower's features, float32 [W, width]; of musicnn."""
        if (kind := self.spec.audio_tower.kind) not in MUSICNN_DIM:
            raise InputError(f"features are those of audio_tower.kind=musicnn, this is {kind}")
        output = self._features_forward(self._checked(windows, scales), scales)
        return output[:, : self.spec.dim], output[:, self.spec.dim :]

    def _checked(self, windows: np.ndarray, scales: np.ndarray | None) -> np.ndarray:
        windows = np.asarray(windows)
        wanted, kind = self.spec.audio.window_samples, "f" if scales is None else "i"
        if windows.ndim != 2 or windows.shape[1] != wanted or windows.dtype.kind != kind:
            raise InputError(
                f"windows are float [W, {wanted}], or int16 with scales, got {windows.dtype} "
                f"{list(windows.shape)} {'without' if scales is None else 'with'} scales"
            )
        return np.asarray(windows, dtype=np.float32 if scales is None else np.int16)

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits that identify what an audio vector is computed with; see model.identity."""
        self._require_audio()
        weights = self.towers.state_dict().items()
        arrays = ((name, tensor.detach().cpu().float().numpy()) for name, tensor in weights)
        return fingerprint_of(self.spec, self.precision, self.towers.rules(), arrays)

    def quantize_text(self) -> None:
        """Encode texts in int8 from now on, in a third of the time: for queries, on a CPU.

        The fingerprint and audio vectors do not change. About one in twenty of a query's first ten
        tracks changes. Raises UnusableError on a GPU and where the extra `fast` is not installed.
        """
        missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
        if missing:
            raise UnusableError(
                f"text in int8 needs {' and '.join(missing)}: pip install 'raymtr[fast]'"
            )
        if self.device.type != "cpu":
            raise UnusableError(f"text in int8 is for a CPU, this model is on {self.device}")
        if isinstance(self.towers, MusicCocaTowers):
            raise InputError("text in int8 is for encoders of transformers; MusicCoCa's is a graph")
        from raymtr.model.int8_text import Int8TextTower

        self._text_side = (Int8TextTower(self.towers.text_tower), self.towers.text_projector)
        self._least_text_cosine = LEAST_COSINE_INT8

    def save(self, folder: str) -> None:
        """Write the model to `folder` atomically; `load_model(folder)` reads it."""
        save_towers(self.towers, folder, provenance=self.provenance, trained_on=self.trained_on)

    def check_golden(self, sides: Collection[Side] = SIDES) -> float | None:
        """Embed the golden inputs of `sides` again; return the lowest cosine to the pinned vectors.

        Returns None for a model that was never saved and has nothing pinned. Raises UnusableError
        where the vectors differ: damaged weights, or a machine or library with different results.
        """
        golden, found = self._golden, []
        if golden is None:
            return None
        if "audio" in sides and golden["audio"]:  # none where the audio side was not loaded
            pinned, least = pinned_audio(golden, compute_dtype(self.precision, self.device))
            sounds = golden_sounds(self.spec.audio)[: len(pinned)]
            found.append(cosines(self.embed_windows(sounds), pinned))
            _require_cosine("audio", found[-1], least)
        if "text" in sides and golden["texts"]:  # none where the text side was not loaded
            found.append(cosines(self.encode_text(golden["texts"]), np.array(golden["text"])))
            _require_cosine("text", found[-1], self._least_text_cosine)
        return float(np.concatenate(found).min())

    @cached_property
    def _audio_forward(self) -> AudioForward:
        self._require_audio()
        return AudioForward(self.towers, precision=self.precision, device=self.device)

    def _require_audio(self) -> None:
        if isinstance(self.towers.audio_tower, NoAudioTower):
            self.towers.audio_tower(torch.empty(0))

    @cached_property
    def _features_forward(self) -> AudioForward:
        return AudioForward(
            self.towers, precision=self.precision, device=self.device, features=True
        )

    @cached_property
    def _text_side(self) -> tuple[Callable[[Tensor, Tensor], Tensor], nn.Module]:
        """Text tower and head for this device and precision; the originals if nothing differs."""
        tower, head = self.towers.text_tower, self.towers.text_projector
        dtype = compute_dtype(self.precision, self.device)
        if self.device.type == "cpu" and dtype == torch.float32:
            return tower, head
        return copy.deepcopy(tower).to(self.device, dtype), copy.deepcopy(head).to(self.device)

    @torch.inference_mode()
    def _embed_tokens(self, input_ids: Tensor) -> np.ndarray:
        """Sentences of one length, int64 [B, T] -> float32 [B, D]."""
        tower, head = self._text_side
        input_ids = input_ids.to(self.device)
        with exact_float32():
            vectors: Tensor = head(tower(input_ids, torch.ones_like(input_ids)))
        return np.asarray(vectors.cpu().numpy())

    def _windows(self, source: Sound) -> tuple[np.ndarray, np.ndarray]:
        """Starts and windows of one recording; an AudioError names the recording."""
        samples = decode_sound(source, self.spec.audio)
        try:
            return audio.windows(samples, self.spec.audio)
        except audio.AudioError as error:
            raise audio.AudioError(
                error.code, f"{audio.sound_name(source)}: {error.reason}"
            ) from error

    def _finish(self, vectors: np.ndarray) -> np.ndarray:
        return unit(vectors) if self.normalize else vectors


def _require_cosine(side: str, found: np.ndarray, least: float) -> None:
    """Raise UnusableError unless the mean cosine of a side's golden vectors is at least `least`."""
    if not found.mean() >= least:
        raise UnusableError(
            f"the model's pinned {side} vectors are reproduced with a cosine of "
            f"{found.mean():.6f}, expected at least {least:.7g}: its files are damaged, or this "
            "machine computes other results; do not use its vectors"
        )


def open_device(name: str) -> torch.device:
    """The device called `cpu`, `cuda` or `cuda:1`.

    Raises InputError on any other name, UnusableError if this machine does not have the device.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in TEXTS_AT_ONCE:
        raise InputError(f"device is cpu, cuda or cuda:<number>, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UnusableError(
            f"device {name!r} was requested, but torch sees {torch.cuda.device_count()} GPUs here; "
            "use device='cpu', or a machine and a torch build with CUDA"
        )
    return device


def _listed(items: Any, verb: str, what: str) -> list[Any]:
    if isinstance(items, (str, bytes, os.PathLike)) or not isinstance(items, Iterable):
        raise InputError(
            f"{verb} takes a list of {what}, got {type(items).__name__}: {items!r:.80}"
        )
    return list(items)


def _alike(lengths: list[int], most: int) -> Iterable[list[int]]:
    """Row numbers grouped by length, at most `most` in a group."""
    by_length: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        by_length.setdefault(length, []).append(row)
    for rows in by_length.values():
        for start in range(0, len(rows), most):
            yield rows[start : start + most]
