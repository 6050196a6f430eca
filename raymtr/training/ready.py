"""Before the first step of an objective over audio: a warning of cut sentences, and cache room."""

from __future__ import annotations

import logging

import pyarrow as pa

from raymtr.audio_cache import AudioCache
from raymtr.model.text_tower import TextTower
from raymtr.specs import TrainSpec
from raymtr.training.batches import longer_than
from raymtr.training.tracks import make_room

LOG = logging.getLogger("raymtr")


def ready_for_audio(
    tower: TextTower,
    train: pa.Table,
    cache: AudioCache,
    spec: TrainSpec,
    *,
    rank: int,
    local_rank: int,
) -> None:
    """Rank 0 warns of sentences that `tower` cuts off; one worker per machine makes cache room."""
    if not rank and (
        cut := longer_than(tower.spec.max_tokens, tower.lengths, train, seed=0, weights=spec.texts)
    ):
        LOG.warning("%s", cut)
    if local_rank == 0:
        make_room(cache, train)
