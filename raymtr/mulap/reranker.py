"""Re-ranking: a MuLaP run's matching head reads a sentence beside the first hits of a search.

The part that depends on the audio alone is stored (mulap.store), and the part that depends on the
text alone is computed once per query. Per hit only the two co-attention layers and the layers after
them are computed.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

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


def newest_run(workspace: Workspace) -> str:
    """The MuLaP run that finished last. Raises InputError if none has."""
    model = workspace.newest_model(MARKER)
    if model is None:
        raise InputError(
            f"no MuLaP run has finished in {workspace.root}: train one by `raymtr train --recipe "
            "mulap-small`, and store its features by `raymtr embed --output features`"
        )
    return model.removesuffix("/model").rpartition("/")[2]


class Reranker:
    """Match probabilities of a sentence and tracks, by the run `run` of a workspace."""

    def __init__(self, workspace: Workspace, run: str) -> None:
        """Raises InputError if the run has no matching head, or its features are not stored."""
        self.run = run
        self.model, self.fingerprint = read_mulap(f"{workspace.run(run)}/model")
        towers = self.model.towers
        self._store = find_features(workspace, run, self.fingerprint, towers.audio_tower.dim)
        self._most = math.ceil(self.model.spec.clip_s / towers.audio.window_s)
        self._known: OrderedDict[str, torch.Tensor | None] = OrderedDict()

    def probabilities(self, sentence: str, track_ids: Sequence[str]) -> dict[str, float]:
        """The probability that the sentence is about each track; tracks without features lack."""
        features = self._features(track_ids)
        found = [track_id for track_id in track_ids if features[track_id] is not None]
        if not found:
            return {}
        rows = [row for track_id in found if (row := features[track_id]) is not None]
        return dict(zip(found, match_probabilities(self.model, sentence, rows), strict=True))

    def _features(self, track_ids: Sequence[str]) -> dict[str, torch.Tensor | None]:
        """Features [C, D] of each track, at most as many chunks as a training clip has."""
        missing = [track_id for track_id in track_ids if track_id not in self._known]
        if missing:
            read = self._store.features_of(missing)
            for track_id in missing:
                rows = read.get(track_id)
                self._known[track_id] = None if rows is None else self._spread(rows)
        chosen = {track_id: self._known[track_id] for track_id in track_ids}
        while len(self._known) > TRACKS_KEPT:
            self._known.popitem(last=False)
        return chosen

    def _spread(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(spread(rows, self._most))


def spread(rows: np.ndarray, most: int) -> np.ndarray:
    """All chunks [W, D] of a short track; of a longer one `most`, evenly spaced over all of it."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(int)
    return np.asarray(rows[places])


@torch.inference_mode()
def match_probabilities(model: Mulap, sentence: str, rows: Sequence[torch.Tensor]) -> list[float]:
    """The probability that `sentence` is about each track, given its features [C, D]."""
    tokens = model.text_tower.tokenize([sentence])
    real = tokens["attention_mask"].bool()
    text = model.read(tokens["input_ids"], real)
    features = pad_sequence(list(rows), batch_first=True)
    counts = torch.tensor([len(row) for row in rows])
    heard = torch.arange(features.shape[1]) < counts[:, None]
    texts, reals = text.expand(len(rows), -1, -1), real.expand(len(rows), -1)
    probabilities: list[float] = torch.sigmoid(
        model.meet(texts, reals, features, heard).match
    ).tolist()
    return probabilities
