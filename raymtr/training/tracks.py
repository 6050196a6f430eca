"""Tracks of a run for training and validation: those with audio and words, with captions.

The list is fixed before the first step and stored with the run. A file that failed then stays out
when the run is resumed; otherwise the resumed weights would differ. A worker reads the list from
storage, so starting workers stays cheap with a million tracks.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymtr import storage
from raymtr.audio import AudioError, DecodeGuard
from raymtr.audio_cache import AudioCache, cache_key
from raymtr.errors import InputError, UnusableError
from raymtr.specs import Settings, TrainSpec
from raymtr.track import DEAD_LETTER, PLAYLISTS, PUBLISHED, artist_key
from raymtr.training.mixture import Mixture
from raymtr.workspace import Workspace

LOG = logging.getLogger("raymtr")

AUDIO_COLUMNS = ["track_id", "uri", "file_version"]
COLUMNS = [*AUDIO_COLUMNS, "title", "artist", "album", "tags", "similar_artists", "dataset"]
FEWEST_TRACKS = 2  # a single track has no negatives
MOST_VALID_TRACKS = 200  # validation during training is a quick check, not the evaluation
DECODED = pa.schema(  # the result of decoding each track
    [*(field.with_nullable(True) for field in DEAD_LETTER), pa.field("samples", pa.int64())]
)
WORDS = {  # text type -> the columns it is made from
    "metadata": ("title", "artist"),
    "tags": ("tags",),
    "similar_artists": ("similar_artists",),
    "caption": ("captions",),
    "playlist": (PLAYLISTS,),
}


def read_training_tracks(workspace: Workspace, spec: TrainSpec) -> pa.Table:
    """Rows of COLUMNS, `split` (train or valid) and `captions` (list), sorted by id.

    Raises InputError where there is no catalog or none of a dataset that `spec.mixture` names,
    UnusableError where too few tracks have split `train`, audio and words.
    """
    catalog = storage.read_tables(workspace.tracks, [*COLUMNS, PLAYLISTS, PUBLISHED, "split"])
    if catalog is None or not len(catalog):
        raise InputError(f"no tracks in {workspace.tracks}; run `raymtr scan` first")
    tracks = _with_captions(catalog.sort_by("track_id"), workspace)
    if spec.text_filter:
        tracks = without_unmusical_captions(tracks)
    tracks = tracks.append_column("has_words", _has_words(tracks, spec.texts))
    train, valid = (tracks.filter(pc.field("split") == name) for name in ("train", "valid"))
    usable = pc.field("has_words") & pc.field("uri").is_valid()
    if len(train.filter(usable)) < FEWEST_TRACKS:
        raise UnusableError(
            f"training needs at least {FEWEST_TRACKS} tracks of split 'train' with audio and "
            f"words; of the catalog's {len(tracks)} tracks {len(train)} are in that split, "
            f"{len(train) - train['uri'].null_count} of them with audio, "
            f"{pc.sum(train['has_words']).as_py() or 0} with words; scan more music"
        )
    train, valid = (part.filter(usable).drop_columns("has_words") for part in (train, valid))
    spread = np.linspace(0, len(valid) - 1, min(len(valid), MOST_VALID_TRACKS)).astype(np.int64)
    Mixture(train["dataset"].to_pylist(), spec.mixture, seed=spec.seed)
    return pa.concat_tables([train, valid.take(spread)]).combine_chunks()


def check_trainable(tracks: pa.Table, spec: TrainSpec, failures: pa.Table) -> None:
    """Raise UnusableError if decoding left too few tracks; warn of repeats in a batch."""
    train = tracks.filter(pc.equal(tracks["split"], "train"))
    if len(train) < FEWEST_TRACKS:
        raise UnusableError(
            f"{len(failures)} tracks could not be decoded and {len(train)} to train on are left; "
            f"the first: {failures['uri'][0]}: {failures['reason'][0]}"
        )
    artists = {artist_key(name or "") for name in train["artist"].to_pylist()}
    if spec.false_negatives == "masked" and len(artists) == 1 and "" not in artists:
        raise UnusableError(
            f"all {len(train)} tracks to train on are by one artist, and train.false_negatives="
            "masked compares a row with rows of other artists; scan more, or set it to kept"
        )
    datasets = train["dataset"].to_pylist()
    drawn = Mixture(datasets, spec.mixture, seed=spec.seed).draw(0, spec.global_batch)
    if warning := repeated(drawn, datasets):
        LOG.warning("%s", warning)


def repeated(drawn: np.ndarray, datasets: Sequence[str | None]) -> str | None:
    """A warning about tracks that repeat in a batch of these rows; None without repeats."""
    rows = Counter(drawn.tolist())
    repeats = len(drawn) - len(rows)
    if not repeats:
        return None
    small: dict[str, list[int]] = {}
    for row, count in rows.items():
        counts = small.setdefault(datasets[row] or "", [0, 0])
        counts[0] += 1
        counts[1] += count
    parts = [
        f"{count} rows of the {tracks} tracks of {name or 'the catalog'}"
        for name, (tracks, count) in small.items()
        if count > tracks
    ]
    return (
        f"{repeats} of the {len(drawn)} rows of a batch repeat a track ({', '.join(parts)}). A row "
        "is not a negative of its own track, so such a batch has fewer negatives; lower "
        "train.global_batch, or the weight in train.mixture"
    )


def _with_captions(tracks: pa.Table, workspace: Workspace) -> pa.Table:
    """`tracks` with all captions as one column, in a deterministic order: the dataset's first."""
    kind = pa.list_(pa.string())
    captions = storage.read_tables(workspace.captions, ["track_id", "caption"])
    written = pa.nulls(len(tracks), kind)
    if captions is not None:
        captions = captions.sort_by([("track_id", "ascending"), ("caption", "ascending")])
        grouped = captions.group_by("track_id", use_threads=False).aggregate([("caption", "list")])
        places = pc.index_in(tracks["track_id"], value_set=grouped["track_id"].combine_chunks())
        written = grouped["caption_list"].take(places).cast(kind)
    if PUBLISHED not in tracks.column_names:
        return tracks.append_column("captions", written)
    pairs = zip(tracks[PUBLISHED].to_pylist(), written.to_pylist(), strict=True)
    both = pa.array([[*(own or ()), *(generated or ())] or None for own, generated in pairs], kind)
    return tracks.drop_columns(PUBLISHED).append_column("captions", both)


def _has_words(tracks: pa.Table, weights: Mapping[str, float]) -> pa.ChunkedArray:
    """Whether `text.draw_sentence` can form a sentence for each track under these weights."""
    has_text = pa.chunked_array([pa.array(np.zeros(len(tracks), bool))])
    kinds = [kind for kind in WORDS if not weights or weights.get(kind, 0) > 0]
    for name in (name for kind in kinds for name in WORDS[kind]):
        if name not in tracks.column_names:
            continue
        column = tracks[name]
        size = pc.list_value_length if pa.types.is_list(column.type) else pc.utf8_length
        has_text = pc.or_(has_text, pc.fill_null(pc.greater(size(column), 0), False))
    return has_text


def without_unmusical_captions(tracks: pa.Table) -> pa.Table:
    """`tracks` without the captions that are not about music, as MuLan filters long texts.

    MuLan's filter is a fine-tuned BERT. This one is a rule: a caption stays if it has a word or a
    pair of words of `model.heads.words`, or one of the catalog's tags.
    """
    from raymtr.model.heads import words as heard_words  # loads torch, which decoding never needs

    tags = pc.unique(pc.list_flatten(tracks["tags"])).to_pylist()
    known = {_plain(word) for word in (*heard_words(), *tags) if word}
    kept = [
        [text for text in texts or () if _phrases(text) & known]
        for texts in tracks["captions"].to_pylist()
    ]
    column = pa.array([texts or None for texts in kept], pa.list_(pa.string()))
    left = sum(map(len, kept))
    total = pc.sum(pc.list_value_length(tracks["captions"])).as_py() or 0
    LOG.info("text filter: %d of %d captions are about music", left, total)
    return tracks.set_column(tracks.column_names.index("captions"), "captions", column)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _phrases(text: str) -> set[str]:
    """Words and pairs of neighbouring words."""
    words = _plain(text).split()
    return {*words, *(" ".join(pair) for pair in pairwise(words))}


def content_hash(table: pa.Table) -> str:
    """A hash of a table's content, independent of the files it was read from."""
    digest = hashlib.sha256()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as writer:
        writer.write_table(table.combine_chunks())
    digest.update(sink.getvalue())
    return digest.hexdigest()[:16]


def audio_cache_of(workspace: Workspace, settings: Settings) -> AudioCache:
    """The cache of decoded audio on this machine; call it on the machine itself.

    It is in a local workspace, which all workers share, else below the temporary folder (TMPDIR).
    """
    folder = settings.train.cache_folder or workspace.audio_cache
    if storage.is_remote(folder):
        name = hashlib.sha256(workspace.root.encode()).hexdigest()[:16]
        folder = os.path.join(tempfile.gettempdir(), f"raymtr-audio-{name}")
    budget = int(settings.train.cache_gib * 2**30)
    return AudioCache(folder, settings.clip, budget=budget)


def fill_audio_cache(
    tracks: pa.Table, workspace: Workspace, settings: Settings, *, hung: str
) -> pa.Table:
    """A Ray Data step: decode each track of AUDIO_COLUMNS, into the cache where it is shared.

    Returns DEAD_LETTER's columns and `samples`, one row per track; `code` is null on success. Where
    each machine has its own cache, nothing is cached: a machine would cache tracks that others
    train on. `hung`: see `DecodeGuard`.
    """
    cache = audio_cache_of(workspace, settings)
    if settings.train.cache_folder or storage.is_remote(workspace.root):
        cache.budget = 0
    guard = DecodeGuard(settings.embed, hung)
    rows: list[dict[str, Any]] = []
    for track in tracks.select(AUDIO_COLUMNS).to_pylist():
        row = dict.fromkeys(DECODED.names) | {"track_id": track["track_id"], "uri": track["uri"]}
        try:
            with guard(track["track_id"]):
                row["samples"] = cache.fill(
                    cache_key(track), track["uri"], max_s=guard.max_s, max_mb=guard.max_mb
                )
        except AudioError as error:
            row.update(code=error.code, reason=error.reason)
        rows.append(row)
    return pa.Table.from_pylist(rows, DECODED)


def make_room(cache: AudioCache, tracks: pa.Table) -> None:
    """Delete cached audio of other tracks as far as these tracks need the space."""
    keys = [cache_key(track) for track in tracks.select(AUDIO_COLUMNS).to_pylist()]
    samples = pc.sum(tracks["samples"]).as_py() if "samples" in tracks.column_names else None
    cache.make_room(keys, need=2 * (samples or 0))
