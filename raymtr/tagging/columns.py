"""Tags and attributes of tracks as filterable columns beside the owner's own."""

from __future__ import annotations

import logging
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from raymtr import storage
from raymtr.workspace import Workspace

LOG = logging.getLogger("raymtr")
INDEXED = ("bpm", "key", "mode", "loudness_lufs", "energy", "brightness", "vocal", "heard")


def with_attributes(
    catalog: pa.Table,
    workspace: Workspace,
    *,
    among: Collection[str] = INDEXED,
    partition: str = "",
) -> pa.Table:
    """`catalog` with the INDEXED columns of `heard/`; null where a track was not analysed.

    Only columns `among` these are added. An owner's column of the same name is kept instead. If the
    catalog is one partition of a whole, only that one is read, where `heard/` has the same ones.
    """
    folder, wanted = f"{workspace.heard}/tracks", ["track_id", *INDEXED]
    heard = storage.read_tables(folder, wanted, prefix=f"{partition}-") if partition else None
    if heard is None:
        heard = storage.read_tables(folder, wanted)
    if heard is None:
        return catalog
    place = pc.index_in(catalog["track_id"], value_set=heard["track_id"].combine_chunks())
    for name in INDEXED:
        if name not in among:
            continue
        if name in catalog.column_names:
            LOG.warning(
                "the catalog has its own column %r, which is used instead of the predicted one",
                name,
            )
        else:
            catalog = catalog.append_column(name, heard[name].take(place))
    return catalog
