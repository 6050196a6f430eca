"""The training sample that the parts are fitted on, with its tunes and tag sentences."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from raymtr import storage
from raymtr.embeddings.tables import SOURCES, with_digest
from raymtr.errors import InputError
from raymtr.generation_specs import TokensSpec
from raymtr.text import tags_sentence
from raymtr.track import TUNE
from raymtr.workspace import Workspace

MOST_SENTENCES = 2_000  # their mean vector centres the text vectors


def fit_sample(workspace: Workspace, spec: TokensSpec) -> pa.Table:
    """The tracks that parts are fitted on: of the split `train`, selected by a hash of their ids.

    With a melody part, as many tracks that share a `tune` are added. Raises InputError if there are
    no such tracks.
    """
    columns = [*SOURCES, "split", "tags", "duration", "audio_digest", TUNE]
    catalog = storage.read_tables(workspace.tracks, columns)
    assert catalog is not None, "counted before"
    has_audio = pc.and_(pc.equal(catalog["split"], "train"), pc.is_valid(catalog["uri"]))
    tracks = catalog.filter(has_audio)
    if not len(tracks):
        raise InputError(
            f"no track of split 'train' in {workspace.tracks} has audio; scan more music"
        )
    chosen = set(_by_hash(tracks["track_id"].to_pylist())[: spec.fit_tracks])
    if spec.melody.steps:
        chosen |= set(_in_pairs(tracks)[: spec.fit_tracks])
    return tracks.take(sorted(chosen)).combine_chunks()


def _in_pairs(tracks: pa.Table) -> list[int]:
    """Row numbers of tracks that share a `tune` but not their audio, tune by tune, in hash order.

    Raises InputError if fewer than two tunes have such tracks.
    """
    digests = with_digest(tracks)["audio_digest"].to_pylist()
    by_tune: dict[str, dict[str | int, int]] = {}
    for place, (tune, digest) in enumerate(zip(_tunes(tracks), digests, strict=True)):
        if tune:
            by_tune.setdefault(tune, {})[digest or place] = place
    pairs = {tune: list(places.values()) for tune, places in by_tune.items() if len(places) > 1}
    if len(pairs) < 2:
        raise InputError(
            "tokens.melody.steps > 0 trains a melody part on tracks of split 'train' that share a "
            f"tune; {len(pairs)} tunes have two such tracks, at least 2 are needed: "
            f"add a column `{TUNE}` to the manifest, or set tokens.melody.steps=0"
        )
    names = list(pairs)
    return [place for n in _by_hash(names) for place in pairs[names[n]]]


def _by_hash(names: Sequence[str]) -> list[int]:
    """The indices of `names` in a pseudo-random order that depends only on the names."""
    hashes = [hashlib.sha256(name.encode()).digest() for name in names]
    return sorted(range(len(names)), key=hashes.__getitem__)


def _tunes(tracks: pa.Table) -> list[str | None]:
    """The `tune` of each track as text; None if it has none."""
    if TUNE not in tracks.column_names:
        return [None] * len(tracks)
    return [None if tune is None else str(tune) for tune in tracks[TUNE].to_pylist()]


def tunes_of(sample: pa.Table) -> dict[str, str]:
    """The tune of each track that has one, by its id."""
    ids = sample["track_id"].to_pylist()
    return {name: tune for name, tune in zip(ids, _tunes(sample), strict=True) if tune}


def sentences_of(sample: pa.Table) -> list[str]:
    """A tag sentence of each track with tags; their mean vector centres the text vectors."""
    tags = sample["tags"].to_pylist()[:MOST_SENTENCES]
    return [tags_sentence(row) for row in tags if row]
