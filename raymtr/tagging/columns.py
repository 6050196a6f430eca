"""Tags and attributes of tracks as filterable columns beside the owner's own."""

from __future__ import annotations

import logging

import pyarrow as pa
import pyarrow.compute as pc

from raymtr import storage
from raymtr.workspace import Workspace

LOG = logging.getLogger("raymtr")
INDEXED = ("bpm", "key", "mode", "loudness_lufs", "energy", "brightness", "vocal", "heard")


def with_attributes(catalog: pa.Table, workspace: Workspace) -> pa.Table:
    """`catalog` with the INDEXED columns of `heard/`; null where a track was not analysed.

    An owner's column of the same name is kept instead.
    """
    heard = storage.read_tables(f"{workspace.heard}/tracks", ["track_id", *INDEXED])
    if heard is None:
        return catalog
    place = pc.index_in(catalog["track_id"], value_set=heard["track_id"].combine_chunks())
    for name in INDEXED:
        if name in catalog.column_names:
            LOG.warning("the catalog's own column %r is kept; what was heard is not shown", name)
        else:
            catalog = catalog.append_column(name, heard[name].take(place))
    return catalog
