"""The matching head of a MuLaP run: how likely a sentence is about each of some tracks.

Re-ranking compares a query with the first hits of a search in this way. The part that depends on
the audio alone is stored (mulap.store), and the part that depends on the text alone is computed
once per query. Per hit only the two co-attention layers and the layers after them are computed.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from raymtr.errors import InputError
from raymtr.mulap.folder import read_mulap
from raymtr.mulap.marker import MARKER
from raymtr.mulap.network import Mulap
from raymtr.mulap.store import find_features
from raymtr.workspace import Workspace

TRACKS_KEPT = 4_096  # whose features stay in memory
# Of a sentence and a track in a batch; the deadline is checked between batches. A search of the
# default depth is one batch, which takes half the time of four of 16.
PAIRS = 64


def newest_run(workspace: Workspace) -> str:
    """The MuLaP run that finished last. Raises InputError if none has."""
    model = workspace.newest_model(MARKER)
    if model is None:
        raise InputError(
            f"no MuLaP run has finished in {workspace.root}: train one by `raymtr train --recipe "
            "mulap-small`, and store its features by `raymtr embed --output features`"
        )
    return model.removesuffix("/model").rpartition("/")[2]


class Question(NamedTuple):
    """A sentence, and the ids of the tracks that it is compared with."""

    sentence: str
    track_ids: Sequence[str]


class RunMatcher:
    """Match probabilities of sentences and tracks, by the run `run` of a workspace.

    Threads may share it.
    """

    def __init__(self, workspace: Workspace, run: str, *, device: str = "cpu") -> None:
        """Raises InputError if the run has no matching head, or its features are not stored."""
        self.run = run
        self.model, self.fingerprint = read_mulap(f"{workspace.run(run)}/model")
        towers = self.model.towers
        store = find_features(workspace, run, self.fingerprint, towers.audio_tower.dim)
        self._reader = store.reader()
        self._most = math.ceil(self.model.spec.clip_s / towers.audio.window_s)
        self._known: OrderedDict[str, torch.Tensor | None] = OrderedDict()
        self._lock = Lock()
        self.model.to(device)

    def probabilities(
        self, sentence: str, track_ids: Sequence[str], within_s: float = math.inf
    ) -> dict[str, float]:
        """The probability that the sentence is about each track; tracks without features lack.

        Raises TimeoutError if it takes longer than `within_s`.
        """
        began, found = time.perf_counter(), dict[str, float]()
        for first in range(0, len(track_ids), PAIRS):
            if time.perf_counter() - began > within_s:
                raise TimeoutError
            found |= self.answer([Question(sentence, track_ids[first : first + PAIRS])])[0]
        return found

    def answer(self, questions: Sequence[Question]) -> list[dict[str, float]]:
        """The probabilities of each question by track id, computed in batches over all of them."""
        features = self._features([name for q in questions for name in q.track_ids])
        pairs = [
            (number, name, rows)
            for number, question in enumerate(questions)
            for name in question.track_ids
            if (rows := features[name]) is not None
        ]
        answers: list[dict[str, float]] = [{} for _ in questions]
        sentences = [question.sentence for question in questions]
        for first in range(0, len(pairs), PAIRS):
            some = pairs[first : first + PAIRS]
            numbers = sorted({number for number, _, _ in some})
            places = [numbers.index(number) for number, _, _ in some]
            texts = [sentences[number] for number in numbers]
            found = match_pairs(self.model, texts, places, [rows for _, _, rows in some])
            for (number, name, _), probability in zip(some, found, strict=True):
                answers[number][name] = probability
        return answers

    def _features(self, track_ids: Sequence[str]) -> dict[str, torch.Tensor | None]:
        """Features [C, D] of each track, at most as many chunks as a training clip has."""
        with self._lock:
            known = {name: self._known[name] for name in track_ids if name in self._known}
        missing = list(dict.fromkeys(name for name in track_ids if name not in known))
        read = self._reader.read(missing) if missing else {}
        new = {
            name: torch.from_numpy(spread(read[name], self._most)) if name in read else None
            for name in missing
        }
        with self._lock:
            self._known |= new
            for name in known:
                if name in self._known:
                    self._known.move_to_end(name)
            while len(self._known) > TRACKS_KEPT:
                self._known.popitem(last=False)
        return known | new


def spread(rows: np.ndarray, most: int) -> np.ndarray:
    """All chunks [W, D] of a short track; of a longer one `most`, evenly spaced over all of it."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(int)
    return np.asarray(rows[places])


def match_probabilities(model: Mulap, sentence: str, rows: Sequence[torch.Tensor]) -> list[float]:
    """The probability that `sentence` is about each track, given its features [C, D]."""
    return match_pairs(model, [sentence], [0] * len(rows), rows)


@torch.inference_mode()
def match_pairs(
    model: Mulap, sentences: Sequence[str], places: Sequence[int], rows: Sequence[torch.Tensor]
) -> list[float]:
    """The probability that `sentences[places[n]]` is about the track of features `rows[n]` [C, D].

    Each sentence is read once, however many tracks it is compared with.
    """
    device = next(model.parameters()).device
    tokens = model.text_tower.tokenize(list(sentences))
    real = tokens["attention_mask"].bool().to(device)
    text = model.read(tokens["input_ids"].to(device), real)
    features = pad_sequence(list(rows), batch_first=True).to(device)
    counts = torch.tensor([len(row) for row in rows], device=device)
    heard = torch.arange(features.shape[1], device=device) < counts[:, None]
    of_pair = torch.tensor(places, device=device)
    met = model.meet(text[of_pair], real[of_pair], features, heard)
    probabilities: list[float] = torch.sigmoid(met.match).tolist()
    return probabilities
