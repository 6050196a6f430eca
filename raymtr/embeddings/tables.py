"""The tables of a shard, built from the model's output; the tracks whose audio has changed.

Pure functions of Arrow tables: nothing here reads or writes a file.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from raymtr import audio
from raymtr.track import DEAD_LETTER

SOURCES = ["track_id", "uri", "file_version"]  # the file to embed a track from
MADE_FROM = [*SOURCES, "audio_digest"]  # the file it was embedded from
# A dead letter records the rules that rejected the file: under newer rules it is tried again.
DEAD_LETTER_SCHEMA = pa.schema([*DEAD_LETTER, pa.field("rules", pa.int32())])


def dead_letters_of(failed: pa.Table) -> pa.Table:
    """EMBEDDED rows without vectors as dead letters."""
    rules = pa.array([audio.RULES] * len(failed), pa.int32())
    return failed.select(DEAD_LETTER.names).append_column("rules", rules).cast(DEAD_LETTER_SCHEMA)


def tracks_of(good: pa.Table, dim: int) -> pa.Table:
    """`track_id, vector [D], seconds` of EMBEDDED rows."""
    columns = {"track_id": good["track_id"], "vector": _vectors(good["vector"], dim)}
    return pa.table(columns | {"seconds": good["seconds"]})


def windows_of(good: pa.Table, dim: int) -> pa.Table:
    """`track_id, start_s, end_s, vector [D]` of all windows of EMBEDDED rows."""
    starts = good["starts_s"].combine_chunks()
    return pa.table(
        {
            "track_id": good["track_id"].take(pc.list_parent_indices(starts)),
            "start_s": pc.list_flatten(starts),
            "end_s": pc.list_flatten(good["ends_s"].combine_chunks()),
            "vector": _vectors(good["windows"], dim),
        }
    )


def _vectors(lists: pa.ChunkedArray, dim: int) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pc.list_flatten(lists.combine_chunks()), dim)


def with_digest(table: pa.Table) -> pa.Table:
    """`table` with the column `audio_digest`, null where an older version did not write it."""
    if "audio_digest" in table.column_names:
        return table
    return table.append_column("audio_digest", pa.nulls(len(table), pa.string()))


def changed_audio(before: pa.Table, catalog: pa.Table) -> pa.ChunkedArray:
    """Ids of the tracks of `before` (columns MADE_FROM) whose audio differs in the catalog.

    If both digests of the coded audio are known they decide, so editing tags keeps the vector.
    Otherwise the file versions decide if both are known, so moving a folder changes nothing.
    Otherwise the URI decides.
    """
    both = with_digest(before).join(
        with_digest(catalog).select(MADE_FROM),
        "track_id",
        join_type="inner",
        right_suffix="_now",
    )
    same_uri = pc.equal(both["uri"], both["uri_now"])
    same_version = pc.equal(both["file_version"], both["file_version_now"])  # null: unknown
    digests = both["audio_digest"], both["audio_digest_now"]
    rules = [pc.utf8_slice_codeunits(digest, 0, 2) for digest in digests]  # `1-`: digest version
    unknown = pa.scalar(None, pa.bool_())
    same_digest = pc.if_else(pc.equal(*rules), pc.equal(*digests), unknown)
    same = pc.coalesce(same_digest, same_version, same_uri)
    return both["track_id"].filter(pc.invert(pc.fill_null(same, True)))


def with_adopted_digests(stored: pa.Table, now: pa.Table) -> pa.Table | None:
    """`stored` (columns MADE_FROM) with missing digests taken from `now`, for unchanged files.

    None if that adds no digest.
    """
    stored = with_digest(stored)
    found = now.take(pc.index_in(stored["track_id"], value_set=now["track_id"]))
    same = pc.equal(stored["file_version"], found["file_version"])
    adopted = pc.and_kleene(pc.is_null(stored["audio_digest"]), pc.fill_null(same, False))
    if not pc.any(adopted).as_py():
        return None
    digests = pc.if_else(adopted, found["audio_digest"], stored["audio_digest"])
    return stored.set_column(stored.column_names.index("audio_digest"), "audio_digest", digests)
