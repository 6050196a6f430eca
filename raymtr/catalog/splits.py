"""Splits tracks into train, valid and test by artist, so that no artist is in two splits.

An artist's split depends only on a hash of the seed and the name: adding tracks, artists or files
never moves an artist. With guests (`X feat. Y`, `X; Y`) a track is X's. The trade-off: shares are
met only on average, and a catalog of few artists may have none in a split. A track without an
artist is split by its id.
"""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from raymtr.errors import InputError
from raymtr.track import artist_key, lead_artist


def assign_splits(
    table: pa.Table, *, valid: float = 0.1, test: float = 0.1, seed: int = 0
) -> pa.Table:
    """`table` with `split` filled where it is null; `valid` and `test` are shares of the artists.

    A given split stays, and the artist's other tracks follow it. Raises InputError if the shares
    are not valid, or if the given splits leak.
    """
    if valid < 0 or test < 0 or valid + test > 1:
        raise InputError(f"shares valid {valid} and test {test}: expected 0 or more, together 1")
    check_no_leak(table)
    given = _artist_splits(table)

    def draw(word: str) -> str:
        digest = hashlib.blake2b(f"{seed}\n{word}".encode(), digest_size=8).digest()
        share = int.from_bytes(digest) / 2**64
        return "test" if share < test else "valid" if share < test + valid else "train"

    artists = table["artist"].combine_chunks().dictionary_encode()
    names = artists.dictionary.to_pylist()
    leads = [artist_key(lead_artist(name) or name) for name in names]
    by_artist = [
        given.get(artist_key(name)) or given.get(lead) or draw(f"artist {lead}")
        for name, lead in zip(names, leads, strict=True)
    ]
    drawn = pa.array(by_artist, pa.string()).take(artists.indices)
    alone = table.filter(pc.is_null(table["artist"]))["track_id"].to_pylist()
    drawn = pc.replace_with_mask(
        drawn, drawn.is_null(), pa.array([draw(f"track {i}") for i in alone], pa.string())
    )
    column = table.column_names.index("split")
    return table.set_column(column, "split", pc.coalesce(table["split"], drawn))


def check_no_leak(table: pa.Table) -> None:
    """Raise InputError that names examples if an artist has tracks in two splits."""
    found: dict[str, tuple[str, str]] = {}  # key -> name and split seen first
    leaks = []
    for artist, split in _pairs(table):
        name, first = found.setdefault(artist_key(artist), (artist, split))
        if first != split:
            spelled = name if name == artist else f"{name} ({artist})"
            leaks.append(f"{spelled} in {first} and {split}")
    if leaks:
        raise InputError(
            f"{len(leaks)} artists are in two splits, among them {'; '.join(leaks[:3])}; "
            "give all tracks of an artist one split, or leave the column empty"
        )


def _artist_splits(table: pa.Table) -> dict[str, str]:
    return {artist_key(artist): split for artist, split in _pairs(table)}


def _pairs(table: pa.Table) -> list[tuple[str, str]]:
    """The distinct pairs of artist and split, without unknown ones."""
    pairs = table.select(["artist", "split"]).drop_null().group_by(["artist", "split"])
    rows = pairs.aggregate([]).sort_by([("artist", "ascending"), ("split", "ascending")])
    return list(zip(rows["artist"].to_pylist(), rows["split"].to_pylist(), strict=True))
