"""MusicCoCa behind the interface of `TwoTowers`: the joint embedding of Magenta RealTime.

It is the open successor of MuLan (Huang et al., ISMIR 2022), trained as CoCa is (Yu et al. 2022).
The release is three TFLite graphs and a SentencePiece vocabulary, as the package `magenta-rt` 2.0.3
reads them: text is lower-cased, cut at 128 tokens with the start token and padded; a window of
10 s at 16 kHz goes through a preprocessor and an encoder. The package itself is not needed, which
requires JAX; LiteRT runs the graphs, on a CPU, in float32.

Limitations: no training, no GPU. The release's mapper of text vectors into the audio space is left
out: it adds noise, so a query would have several answers.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raymtr.errors import UnusableError
from raymtr.model.text_tower import NoTextTower, TextTower
from raymtr.tower_specs import AudioSpec, TextTowerSpec, TowersSpec

KIND = "musiccoca"  # the model's name, and the kind in our config.json
DIM = 768
MAX_TOKENS, START = 128, 1  # of a text, with the start token
PACKAGES = {"ai_edge_litert": "ai-edge-litert", "sentencepiece": "sentencepiece"}
VOCABULARY = "text_tower.vocabulary"
FILES = {  # buffer -> file of the release
    VOCABULARY: "spm.model",
    "text_tower.graph.content": "text_encoder.tflite",
    "audio_tower.preprocessor.content": "audio_preprocessor.tflite",
    "audio_tower.encoder.content": "music_encoder.tflite",
}


class Graph(nn.Module):
    """A TFLite graph of one output; its file is a buffer, uint8 [bytes].

    One call runs at a time. A copy of the module, in this process or another, opens the file again.
    """

    content: Tensor

    def __init__(self, content: Tensor) -> None:
        super().__init__()
        self.register_buffer("content", content)
        self._open()

    def _open(self) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._lock = threading.Lock()
        file = self.content.cpu().numpy().tobytes()
        interpreter = Interpreter(model_content=file, num_threads=torch.get_num_threads())
        interpreter.allocate_tensors()
        self._interpreter = interpreter
        self.inputs: list[dict[str, Any]] = interpreter.get_input_details()

    def __getstate__(self) -> dict[str, Any]:
        opened = ("_lock", "_interpreter", "inputs")
        return {name: value for name, value in self.__dict__.items() if name not in opened}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._open()

    def forward(self, *values: np.ndarray) -> np.ndarray:
        """Run once; an input takes the one value of its dtype, in the graph's own shape."""
        with self._lock:
            for given in self.inputs:
                (value,) = (value for value in values if value.dtype == given["dtype"])
                self._interpreter.set_tensor(given["index"], value.reshape(given["shape"]))
            self._interpreter.invoke()
            output = self._interpreter.get_output_details()[0]["index"]
            return np.array(self._interpreter.get_tensor(output))


class CocaAudio(nn.Module):
    """float32 windows [B, samples] -> [B, DIM]."""

    def __init__(self, preprocessor: Tensor, encoder: Tensor) -> None:
        super().__init__()
        self.preprocessor, self.encoder = Graph(preprocessor), Graph(encoder)

    def forward(self, waves: Tensor) -> Tensor:
        """One window after the other, cut or padded with zeros to what the preprocessor reads."""
        size = int(np.prod(self.preprocessor.inputs[0]["shape"]))
        rows = np.zeros((len(waves), size), np.float32)
        length = min(size, waves.shape[1])
        rows[:, :length] = waves[:, :length].numpy()
        vectors = [self.encoder(self.preprocessor(row)).reshape(DIM) for row in rows]
        return torch.from_numpy(np.stack(vectors))


class CocaText(TextTower):
    """Tokens [B, T] -> [B, DIM]; the vocabulary's file is a buffer."""

    vocabulary: Tensor

    def __init__(self, graph: Tensor, vocabulary: Tensor) -> None:
        from sentencepiece import SentencePieceProcessor

        nn.Module.__init__(self)
        self.spec, self.hidden = SPEC.text_tower, DIM
        self.graph = Graph(graph)
        self.register_buffer("vocabulary", vocabulary)
        self.pieces = SentencePieceProcessor(model_proto=vocabulary.numpy().tobytes())

    def train(self, mode: bool = True) -> CocaText:
        """Do nothing: there is no mode to switch."""
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One sentence after the other."""
        vectors = []
        for ids, real in zip(input_ids, attention_mask.sum(1).tolist(), strict=True):
            tokens, padding = np.zeros(MAX_TOKENS, np.int32), np.ones(MAX_TOKENS, np.float32)
            tokens[:real], padding[:real] = ids[:real].numpy(), 0.0
            vectors.append(self.graph(tokens, padding).reshape(DIM))
        return torch.from_numpy(np.stack(vectors))

    def _ids(self, sentences: list[str], *, cut: bool) -> list[list[int]]:
        most = MAX_TOKENS - 1 if cut else None
        clean = (sentence.encode("utf-8", "replace").decode().lower() for sentence in sentences)
        return [[START, *self.pieces.EncodeAsIds(sentence)[:most]] for sentence in clean]

    @property
    def padding(self) -> int:
        """The token that fills a batch up."""
        return 0


class MusicCocaTowers(nn.Module):
    """Audio and text to [B, DIM], with the interface of `TwoTowers`."""

    def __init__(self, content: Mapping[str, Tensor]) -> None:
        """`content` has the files of FILES, uint8 each; without the vocabulary there is no text.

        Raises UnusableError where a package is missing, or LiteRT cannot read a graph.
        """
        super().__init__()
        require_packages()
        self.spec = SPEC
        audio = ("audio_tower.preprocessor.content", "audio_tower.encoder.content")
        try:
            self.audio_tower = CocaAudio(*(content[name] for name in audio))
            self.text_tower: TextTower = NoTextTower(DIM)
            if VOCABULARY in content:
                self.text_tower = CocaText(content["text_tower.graph.content"], content[VOCABULARY])
        except (ValueError, RuntimeError, KeyError) as error:
            raise UnusableError(
                f"MusicCoCa's graphs cannot be read ({type(error).__name__}: {error!s:.200}); "
                "fetch the release again"
            ) from error
        self.audio_projector, self.text_projector = nn.Identity(), nn.Identity()

    def embed_audio(self, waves: Tensor) -> Tensor:
        """float32 waves [B, window_samples] -> [B, DIM]."""
        vectors: Tensor = self.audio_tower(waves)
        return vectors

    def embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Tokens [B, T] -> [B, DIM]."""
        vectors: Tensor = self.text_tower(input_ids, attention_mask)
        return vectors

    def tokenize(self, sentences: list[str]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, int64 [B, T], on the CPU."""
        return self.text_tower.tokenize(sentences)

    def rules(self) -> dict[str, Any]:
        """The settings, beside weights and windows, that an audio vector depends on."""
        return {"tower": "musiccoca, its own preprocessor"}

    def save_parts(self, folder: Path) -> None:
        """Write nothing: graphs and vocabulary are among the weights."""


SPEC = TowersSpec(
    audio=AudioSpec(sample_rate=16_000, window_s=10.0),  # the mel is the preprocessor's own
    text_tower=TextTowerSpec(source=KIND, max_tokens=MAX_TOKENS, trainable=False),
    dim=DIM,
)


def require_packages() -> None:
    """Raise UnusableError unless the packages that run the graphs are installed."""
    missing = [name for module, name in PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise UnusableError(f"MusicCoCa needs {' and '.join(missing)}: pip install 'raymtr[coca]'")


def is_release(folder: Path) -> bool:
    """Whether `folder` has MusicCoCa's audio encoder."""
    return (folder / FILES["audio_tower.encoder.content"]).is_file()


def read_music_coca_release(folder: Path) -> MusicCocaTowers:
    """The towers from a folder with the release's files.

    Raises UnusableError where a file or a package is missing, or a file is damaged.
    """
    if missing := [name for name in FILES.values() if not (folder / name).is_file()]:
        raise UnusableError(f"{folder} lacks {', '.join(missing)} of MusicCoCa; fetch it again")
    content = {name: bytearray((folder / file).read_bytes()) for name, file in FILES.items()}
    if empty := [FILES[name] for name, held in content.items() if not held]:
        raise UnusableError(f"{folder}: {', '.join(empty)} is empty; fetch it again")
    return MusicCocaTowers(
        {name: torch.frombuffer(held, dtype=torch.uint8) for name, held in content.items()}
    )
