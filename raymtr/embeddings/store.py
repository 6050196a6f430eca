"""The stored vectors of one model: complete shards, each committed once, by one owner.

The files and their owner are those of `shard_folder`. Every track is in `tracks/` or in
`dead_letter/` exactly once. A track whose file has changed since is removed from its shard and
embedded again. Only the driver of a run writes, so no worker can outlive its driver and commit
late.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import ClassVar, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymtr import audio, storage
from raymtr.embeddings.shard_folder import ShardFolder
from raymtr.embeddings.tables import (
    MADE_FROM,
    changed_audio,
    dead_letters_of,
    tracks_of,
    windows_of,
    with_adopted_digests,
    with_digest,
)
from raymtr.errors import InputError
from raymtr.ownership import RUN
from raymtr.partitions import partition_names
from raymtr.track import DEAD_LETTER
from raymtr.validation import Precision, from_dict, spec, to_dict
from raymtr.workspace import Workspace

EVERY_CODE = "all"
WITHOUT_RULES = ("timeout", "bad_vector")  # codes of failures other than a refusal by the decoder


EMBEDDED_SCHEMA = pa.schema(  # the result of one track: vectors, or the reason there are none
    [
        pa.field("track_id", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("file_version", pa.string()),  # of the file, from the catalog
        pa.field("audio_digest", pa.string()),  # of the coded audio that was decoded
        pa.field("seconds", pa.float64()),  # decoded duration
        pa.field("starts_s", pa.list_(pa.float64())),  # [W]
        pa.field("ends_s", pa.list_(pa.float64())),  # [W]
        pa.field("vector", pa.list_(pa.float32())),  # [D], unit vector
        pa.field("windows", pa.list_(pa.float32())),  # [W * D], unit rows
        pa.field("code", pa.string()),
        pa.field("reason", pa.string()),
    ]
)


@spec
class ModelRef:
    """The model that computed a folder's vectors; enough to load the same model again."""

    fingerprint: str
    precision: Precision
    dim: int


class Account(TypedDict):
    """The tracks of a catalog by outcome."""

    embedded: int
    failed: int
    skipped: int  # without audio
    error_rate: float  # of those with audio
    errors: dict[str, int]  # by dead-letter code


class EmbeddingStore(ShardFolder):
    """The shards under one `embeddings/<fingerprint>` folder, or those of one partition."""

    window_rows: ClassVar[int | None] = None  # of a row group of `windows/`; None: pyarrow's size

    def __init__(self, folder: str, made_by: ModelRef) -> None:
        super().__init__(folder, to_dict(made_by))
        self.made_by = made_by

    @classmethod
    def open(cls, folder: str) -> EmbeddingStore:
        """Open the store that an earlier run wrote in `folder`."""
        return cls(folder, from_dict(ModelRef, storage.read_json(f"{folder}/{RUN}")["made_by"]))

    @classmethod
    def of_model(cls, workspace: Workspace, made_by: ModelRef) -> EmbeddingStore:
        """The store of one model's vectors in a workspace; its folder need not exist yet."""
        return cls(workspace.embeddings(made_by.fingerprint), made_by)

    def parts(self) -> list[EmbeddingStore]:
        """The stores of the partitions, in order; this one alone where there is one."""
        count = self.run.get("partitions", 1)
        return [self.part(name) for name in partition_names(count)] if count > 1 else [self]

    @property
    def model_folder(self) -> str:
        """Folder of the model that computed the vectors."""
        return f"{self.folder}/model"

    @property
    def hung(self) -> str:
        """Folder with one file per track whose decoder hung; see `audio.DecodeGuard`."""
        return f"{self.folder}/hung"

    def commit(self, embedded: pa.Table) -> None:
        """Write one shard of EMBEDDED rows.

        Raises UnusableError if another run has become the owner.
        """
        name = self.shard_name(embedded["track_id"].to_pylist())
        failed = embedded.filter(pc.is_valid(embedded["code"]))
        good = embedded.filter(pc.is_null(embedded["code"])).combine_chunks()
        self._write("windows", name, self._windows_of(good))
        storage.write_table(self.file("sources", name), embedded.select(MADE_FROM))
        if len(failed):
            storage.write_table(self.file("dead_letter", name), dead_letters_of(failed))
        self.check_owner()
        storage.write_table(self.file("tracks", name), self._tracks_of(good))

    def done(self) -> pa.ChunkedArray:
        """Ids of all committed tracks, embedded or failed, in no particular order."""
        chunks: list[pa.Array] = []
        for table in (self.read_columns("tracks", ["track_id"]), self.read_dead_letters()):
            if table is not None:
                chunks += table["track_id"].chunks
        return pa.chunked_array(chunks, pa.string())

    def remaining(self, catalog: pa.Table) -> pa.Table:
        """The catalog's tracks with audio that are not committed, or changed since."""
        undone = pc.invert(pc.is_in(catalog["track_id"], value_set=self.done()))
        changed = pc.is_in(catalog["track_id"], value_set=self.changed(catalog))
        wanted = pc.and_(pc.is_valid(catalog["uri"]), pc.or_(undone, changed))
        return catalog.filter(wanted)

    def changed(self, catalog: pa.Table) -> pa.ChunkedArray:
        """Ids of committed tracks whose audio has changed since."""
        before = self.read_columns("sources", MADE_FROM)
        if before is None:
            return pa.chunked_array([], pa.string())
        return changed_audio(before, catalog)

    def adopt_digests(self, catalog: pa.Table) -> None:
        """Add digests to tracks that were embedded without one and whose file is unchanged."""
        now = catalog.filter(pc.is_valid(with_digest(catalog)["audio_digest"])).select(MADE_FROM)
        for name in sorted(self.names("sources")) if len(now) else ():
            stored = storage.read_table(self.file("sources", name))
            if (adopted := with_adopted_digests(stored, now)) is not None:
                self.check_owner()
                storage.write_table(self.file("sources", name), adopted)

    def forget(self, ids: pa.ChunkedArray) -> None:
        """Remove these tracks, embedded or failed, from their shards.

        `sources/` loses them last. So after a kill the next call still finds them there, and
        removes what is left of them.
        """
        for name in sorted(self.names("tracks")) if len(ids) else ():
            sources = self.file("sources", name)
            if not storage.exists(sources):
                continue
            stored = storage.read_table(sources)["track_id"]
            if not pc.any(pc.is_in(stored, value_set=ids)).as_py():
                continue
            self.check_owner()
            for kind in ("windows", "dead_letter", "tracks", "sources"):
                if storage.exists(file := self.file(kind, name)):
                    table = storage.read_table(file)
                    gone = pc.is_in(table["track_id"], value_set=ids)
                    self._write(kind, name, table.filter(pc.invert(gone)))

    def account(self, catalog: pa.Table) -> Account:
        """Counts of the catalog's tracks by outcome over all runs, once a run has finished."""
        letters = self.read_dead_letters()
        letters = letters.filter(pc.is_in(letters["track_id"], value_set=catalog["track_id"]))
        skipped = catalog["uri"].null_count
        tried = len(catalog) - skipped
        return {
            "embedded": tried - len(letters),
            "failed": len(letters),
            "skipped": skipped,
            "error_rate": len(letters) / tried if tried else 0.0,
            "errors": dict(Counter(letters["code"].to_pylist()).most_common()),
        }

    def read_tracks(self) -> pa.Table:
        """`track_id, vector` of all embedded tracks."""
        table = self.read_columns("tracks", ["track_id", "vector"])
        if table is not None:
            return table
        return tracks_of(EMBEDDED_SCHEMA.empty_table(), self.made_by.dim).select(
            ["track_id", "vector"]
        )

    def lengths(self) -> pa.Table:
        """`track_id, seconds` of the tracks whose decoded length is known."""
        table = self.read_columns("tracks", ["track_id", "seconds"])
        if table is None or "seconds" not in table.column_names:
            table = EMBEDDED_SCHEMA.empty_table().select(["track_id", "seconds"])
        return table.filter(pc.is_valid(table["seconds"]))

    def window_tables(self) -> Iterator[pa.Table]:
        """`track_id, start_s, end_s, vector` of all windows, one committed shard at a time."""
        for name in sorted(self.names("windows") & self.names("tracks")):
            yield storage.read_table(self.file("windows", name))

    def of_tracks(self, ids: pa.Array) -> tuple[pa.Table, pa.Table]:
        """The rows of `tracks/` and of `windows/` for these tracks.

        Of shards without any of them only the ids are read.
        """
        tracks = [tracks_of(EMBEDDED_SCHEMA.empty_table(), self.made_by.dim)]
        windows = [windows_of(EMBEDDED_SCHEMA.empty_table(), self.made_by.dim)]
        for name in sorted(self.names("tracks")):
            stored = storage.read_table(self.file("tracks", name), ["track_id"])
            if pc.any(pc.is_in(stored["track_id"], value_set=ids)).as_py():
                for kind, parts in (("tracks", tracks), ("windows", windows)):
                    table = storage.read_table(self.file(kind, name))
                    parts.append(table.filter(pc.is_in(table["track_id"], value_set=ids)))
        return pa.concat_tables(tracks, promote_options="default"), pa.concat_tables(windows)

    def read_dead_letters(self) -> pa.Table:
        """`track_id, uri, code, reason` of all tracks that failed."""
        table = self.read_columns("dead_letter", list(DEAD_LETTER.names))
        return DEAD_LETTER.empty_table() if table is None else table

    def refused_by_older_rules(self) -> pa.ChunkedArray:
        """Ids of tracks that the decoder rejected under other rules than the current ones."""
        letters = self.read_columns("dead_letter", ["track_id", "code", "rules"])
        if letters is None:
            return pa.chunked_array([], pa.string())
        old = pa.chunked_array([pa.array([True] * len(letters))])
        if "rules" in letters.column_names:
            old = pc.not_equal(pc.fill_null(letters["rules"], 0), audio.RULES)
        other = pc.is_in(letters["code"], value_set=pa.array(WITHOUT_RULES))
        return letters["track_id"].filter(pc.and_(old, pc.invert(other)))

    def codes_to_retry(self, codes: Sequence[str]) -> list[str]:
        """The codes of dead letters among `codes`, or all of them; hung tracks may hang again.

        Raises InputError for a code that no dead letter has.
        """
        found = sorted(set(self.read_dead_letters()["code"].to_pylist()))
        unknown = sorted(set(codes) - {*found, EVERY_CODE})
        if unknown:
            raise InputError(
                f"no track failed with {unknown[0]!r}; codes here: {', '.join(found) or 'none'}"
            )
        wanted = found if EVERY_CODE in codes else sorted(codes)
        if audio.HUNG in wanted:
            storage.delete(self.hung)
        return wanted

    def forget_failures(self, codes: Sequence[str]) -> None:
        """Delete the dead letters with these `codes`, so that their tracks are tried again."""
        letters = self.read_dead_letters()
        codes = pa.array(codes, pa.string())
        self.forget(letters["track_id"].filter(pc.is_in(letters["code"], codes)))

    def _write(self, kind: str, name: str, table: pa.Table) -> None:
        rows = self.window_rows if kind == "windows" else None
        storage.write_table(self.file(kind, name), table, group_rows=rows)

    def _tracks_of(self, good: pa.Table) -> pa.Table:
        return tracks_of(good, self.made_by.dim)

    def _windows_of(self, good: pa.Table) -> pa.Table:
        return windows_of(good, self.made_by.dim)


def all_embeddings(workspace: Workspace) -> list[EmbeddingStore]:
    """The stores of all models, in the order in which their run files were last written.

    A folder without a run file is left out: its run is starting, or was killed while it started.
    """
    folders = [
        workspace.embeddings(name) for name in storage.list_folders(workspace.path("embeddings"))
    ]
    begun = [folder for folder in folders if storage.exists(f"{folder}/{RUN}")]
    begun.sort(key=lambda folder: storage.modified_s(f"{folder}/{RUN}"))
    return [EmbeddingStore.open(folder) for folder in begun]


def find_embeddings(workspace: Workspace, fingerprint: str | None = None) -> EmbeddingStore:
    """The store of the model `fingerprint`; without one, the store that finished last.

    Raises InputError if there is none, or none that finished.
    """
    found = all_embeddings(workspace)
    seen = ", ".join(sorted(shards.made_by.fingerprint for shards in found)) or "none"
    if fingerprint is not None:
        found = [shards for shards in found if shards.made_by.fingerprint == fingerprint]
        if not found:
            raise InputError(f"no embeddings of model {fingerprint!r} here; there are: {seen}")
        return found[0]
    finished = [shards for shards in found if shards.complete]
    if not finished:
        raise InputError(
            f"no finished embeddings in {workspace.root} (there are: {seen}); run `raymtr embed`"
        )
    return finished[-1]


def matrix_of(column: pa.ChunkedArray) -> np.ndarray:
    """A column of fixed-size vectors as an array [N, D]."""
    dim = column.type.list_size
    flat = pc.list_flatten(column.combine_chunks()).to_numpy(zero_copy_only=False)
    return np.asarray(flat).reshape(-1, dim)
