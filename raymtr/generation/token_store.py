"""Stored tokens: `tokens/<fingerprint>/`, with the parts and the joint model that encoded them.

    tracks/*.parquet    track_id, seconds, semantic, acoustic (flattened frame by frame, level by
                        level), melody (null without that part), starts_s and vectors (of the joint
                        model's windows)
    windows/*.parquet   track_id, start_s, end_s, joint (tokens M_A of that window)
    parts/, model/      the parts (generation.parts), and the towers of the joint tokens

Shards, dead letters and resuming work as in embeddings.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymtr import storage
from raymtr.embeddings.store import EMBEDDED_SCHEMA, EmbeddingStore, ModelRef
from raymtr.errors import InputError
from raymtr.generation.parts import MARKER
from raymtr.generation_specs import TokensSpec
from raymtr.validation import from_dict
from raymtr.workspace import Workspace

TOKENS = pa.list_(pa.int16())
TOKENS_SCHEMA = pa.schema(
    [
        *EMBEDDED_SCHEMA,
        pa.field("semantic", TOKENS),
        pa.field("acoustic", TOKENS),
        pa.field("joint", TOKENS),  # [W * levels]
        pa.field("melody", TOKENS),  # [windows * levels]; null without that part
    ]
)


class TokenStore(EmbeddingStore):
    """The shards of one set of parts."""

    JOB = "tokenize"

    def __init__(self, workspace: Workspace, fingerprint: str, joint_levels: int) -> None:
        made_by = ModelRef(fingerprint=fingerprint, precision="fp32", dim=joint_levels)
        super().__init__(workspace.tokens(fingerprint), made_by)

    @property
    def parts_folder(self) -> str:
        """Folder of the parts that encoded the tokens."""
        return f"{self.folder}/parts"

    def _tracks_of(self, good: pa.Table) -> pa.Table:
        names = ("track_id", "seconds", "semantic", "acoustic", "melody", "starts_s")
        return good.select(names).append_column("vectors", good["windows"])

    def _windows_of(self, good: pa.Table) -> pa.Table:
        starts = good["starts_s"].combine_chunks()
        flat = pc.list_flatten(good["joint"].combine_chunks())
        return pa.table(
            {
                "track_id": good["track_id"].take(pc.list_parent_indices(starts)),
                "start_s": pc.list_flatten(starts),
                "end_s": pc.list_flatten(good["ends_s"].combine_chunks()),
                "joint": pa.FixedSizeListArray.from_arrays(flat, self.made_by.dim),
            }
        )


def find_parts(workspace: Workspace, spec: TokensSpec, joint_model: str) -> str | None:
    """Fingerprint of the parts with these settings and this joint model; None if there are none."""
    for name in storage.list_folders(workspace.path("tokens")):
        file = f"{workspace.tokens(name)}/parts/{MARKER}"
        if storage.exists(file):
            config = storage.read_json(file)
            same = from_dict(TokensSpec, config["tokens"]) == spec
            if same and config["joint_model"] == joint_model:
                return str(config["fingerprint"])
    return None


def find_tokens(workspace: Workspace, spec: TokensSpec) -> TokenStore:
    """The newest finished tokens with these settings, over all joint models.

    Raises InputError if there are none.
    """
    found = []
    for name in storage.list_folders(workspace.path("tokens")):
        file = f"{workspace.tokens(name)}/parts/{MARKER}"
        if not storage.exists(file):
            continue
        if from_dict(TokensSpec, storage.read_json(file)["tokens"]) == spec:
            store = TokenStore(workspace, name, spec.joint_levels)
            if store.complete:
                found.append((storage.modified_s(file), name, store))
    if not found:
        folders = ", ".join(storage.list_folders(workspace.path("tokens"))) or "none"
        raise InputError(
            f"no finished tokens with these settings (tokens.*) in {workspace.root} (there are: "
            f"{folders}); run `raymtr tokenize` with the same recipe first"
        )
    return max(found)[2]


def token_tracks(workspace: Workspace, tokens: TokenStore) -> pa.Table:
    """`track_id, split, audio_digest` of tracks with tokens in train and valid, sorted by id."""
    catalog = storage.read_tables(workspace.tracks, ["track_id", "split", "audio_digest"])
    tokenised = tokens.read_columns("tracks", ["track_id"])
    if catalog is None or tokenised is None:
        raise InputError(f"no tracks in {workspace.tracks} have tokens; run `raymtr tokenize`")
    selected = pc.and_(
        pc.is_in(catalog["track_id"], value_set=tokenised["track_id"].combine_chunks()),
        pc.is_in(catalog["split"], value_set=pa.array(["train", "valid"])),
    )
    return catalog.filter(selected).sort_by("track_id").combine_chunks()


def local_tokens(folder: str) -> pa.Table:
    """All rows of `tracks/`, memory-mapped from one local file below the temporary folder.

    Only the rows that are read need memory.
    """
    tracks = f"{folder}/tracks"
    state = storage.files_below(tracks)
    name = hashlib.sha256(json.dumps([folder, state]).encode()).hexdigest()[:32]
    target = os.path.join(storage.copies_folder(), f"tokens-{name}")

    def make(partial: str) -> None:
        os.makedirs(partial)
        writer = None
        for file in sorted(state):
            table = storage.read_table(f"{tracks}/{file}")
            if writer is None:
                writer = pa.ipc.new_file(f"{partial}/tokens.arrow", table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()

    path = os.path.join(storage.make_once(target, make), "tokens.arrow")
    return pa.ipc.open_file(pa.memory_map(path)).read_all()


def tokens_of(row: Mapping[str, object], levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Semantic tokens int64 [T] and acoustic tokens int64 [F, levels] of a row of `tracks/`."""
    semantic = np.asarray(row["semantic"], np.int64)
    return semantic, np.asarray(row["acoustic"], np.int64).reshape(-1, levels)


def all_tokens(folder: str, levels: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As `tokens_of` for each track of a store's folder, shard by shard."""
    for file in storage.list_files(f"{folder}/tracks", suffix=".parquet"):
        table = storage.read_table(f"{folder}/tracks/{file}", ["semantic", "acoustic"])
        for semantic, acoustic in zip(table["semantic"], table["acoustic"], strict=True):
            row = {"semantic": semantic.values, "acoustic": acoustic.values}
            yield tokens_of(row, levels)
