"""`raymtr scan`: a folder of audio, or a manifest, becomes the catalog that all other jobs read.

A folder is listed here, then its files are opened for their tags: a tenth of a millisecond each
(ten for a long Ogg file). A small folder is read by threads in this process and is done before Ray
would have started. From RAY_FROM files on, the listing is spread over the cluster. Its nodes must
see the files under the same paths, which embedding needs anyway.

The new catalog is written next to the old one, then moved over it. A scan that is killed or fails
leaves the old one unchanged. Up to 100,000 tracks that move is one atomic step.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from jobs.ray_calls import arrow_batches
from raymtr import storage
from raymtr.audio import SUFFIXES as AUDIO_SUFFIXES
from raymtr.catalog.continuity import SEEN, count_changes, keep_ids
from raymtr.catalog.datasets import NAMES, dataset_tracks
from raymtr.catalog.file_tags import read_tags
from raymtr.catalog.folder import Listing, is_audio, list_audio, one_file
from raymtr.catalog.manifest import read_manifest
from raymtr.catalog.parquet_files import partitions
from raymtr.catalog.similar_artists import join_similar_artists, read_graph
from raymtr.catalog.splits import assign_splits
from raymtr.catalog.summary import (
    CatalogSummary,
    MissingAudio,
    missing_audio,
    summarize,
    with_digests,
    with_file_versions,
)
from raymtr.catalog.tabular import SUFFIXES
from raymtr.errors import InputError, UnusableError
from raymtr.progress import Progress
from raymtr.specs import ScanSpec, Settings
from raymtr.track import DEAD_LETTER, SCHEMA, check_tracks
from raymtr.workspace import Workspace

LOG = logging.getLogger("raymtr")

EXAMPLE = "raymtr scan ~/Music --workspace w"

BATCH_FILES = 1_000  # files read between two clock checks, or by one Ray task
RAY_FROM = 50_000  # files; below, Ray takes longer to start than it saves


@dataclass
class SourceContent:
    """The content of a source."""

    kind: str  # folder, file or manifest
    tracks: pa.Table
    errors: pa.Table = field(default_factory=DEAD_LETTER.empty_table)
    skipped: dict[str, int] = field(default_factory=dict)
    by_name: int = 0  # tracks whose title is their file's name


class GraphMatch(TypedDict):
    """How many of the catalog's artists are in the graph."""

    artists: int
    matched: int


class ScanAnswer(CatalogSummary):
    """The catalog that was written, and how it differs from the one before."""

    source: str
    kind: str  # folder, file or manifest
    similar_artists: GraphMatch | None
    files: dict[str, int]  # new, changed, moved ...
    by_name: int  # tracks without a title in their tags
    skipped: dict[str, int]
    missing: MissingAudio | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `scan`."""
    parser.add_argument(
        "source",
        help="a folder of audio files, one audio file, or a manifest: Parquet, CSV, TSV or JSON "
        "lines with track_id, uri, title, artist, album, year, duration, tags ...",
    )
    parser.add_argument(
        "--dataset",
        metavar="NAMES",
        help=f"the folder is a published dataset, or has one folder for each: {', '.join(NAMES)}",
    )
    parser.add_argument(
        "--artists",
        metavar="TSV",
        help="artist graph: artist, similar_artist and, if there is one, score",
    )


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> ScanAnswer:
    """The command-line entry point."""
    return scan_catalog(
        *(workspace, settings, arguments.source),
        artists=arguments.artists,
        datasets=arguments.dataset,
    )


def scan_catalog(
    workspace: Workspace,
    settings: Settings,
    source: str,
    *,
    artists: str | None = None,
    datasets: str | None = None,
) -> ScanAnswer:
    """Writes the catalog of `source`, joined with the artist graph `artists`; returns its counts.

    `datasets` are names of published datasets in `source`, comma-separated.

    Raises InputError if the source or the graph is wrong, UnusableError if the source is empty.
    """
    graph = read_graph(artists) if artists else None  # first: a mistake here must not cost the scan
    found = read_datasets(source, datasets) if datasets else read_source(source, settings.scan)
    before = storage.read_tables(workspace.tracks, SEEN)
    tracks = with_file_versions(found.tracks)
    by_table = found.kind == "manifest"  # a manifest has ids
    tracks = with_digests(tracks, before) if by_table else keep_ids(tracks, before)
    tracks = assign_splits(tracks)
    similar: GraphMatch | None = None
    if graph is not None:
        tracks, matched = join_similar_artists(tracks, graph)
        similar = {"artists": matched.artists, "matched": matched.found}
        if not matched.found:
            LOG.warning("none of the catalog's %d artists is in %s", matched.artists, artists)
    answer: ScanAnswer = {
        "source": source,
        "kind": found.kind,
        **summarize(tracks, errors=len(found.errors)),
        "similar_artists": similar,
        "files": count_changes(tracks, before),
        "by_name": found.by_name,
        "skipped": found.skipped,
        "missing": missing_audio(tracks) if found.kind == "manifest" else None,
    }
    write_catalog(workspace, tracks, found.errors)
    storage.write_json(f"{workspace.catalog}/summary.json", answer)
    return answer


def read_datasets(source: str, names: str) -> SourceContent:
    """The tracks of published datasets: of one in `source`, or of each in its folder below it."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    tables = []
    for name in wanted:
        below = f"{source.rstrip('/')}/{name}"
        folder = below if len(wanted) > 1 or storage.exists(below) else source
        tracks, licence, absent = dataset_tracks(name, folder)
        LOG.warning("%s: %d tracks; %s", name, len(tracks), licence)
        if absent:
            LOG.warning("%s: %d tracks have no audio file; their words are kept", name, absent)
        tables.append(tracks)
    if not tables:
        raise InputError(f"--dataset names one or more of {', '.join(NAMES)}; got {names!r}")
    return SourceContent(
        "manifest", check_tracks(pa.concat_tables(tables, promote_options="permissive"))
    )


def read_source(source: str, spec: ScanSpec) -> SourceContent:
    """The tracks of a folder, a file or a manifest."""
    if not storage.exists(source):
        raise InputError(f"there is nothing at {source}; expected a folder of audio, or a manifest")
    filesystem, path = storage.open_filesystem(source)
    if filesystem.get_file_info(path).is_file:
        if is_audio(source):
            return read_files(one_file(source), kind="file")
        if source.lower().endswith(SUFFIXES):
            return SourceContent("manifest", read_manifest(source))
        raise InputError(
            f"{source} is neither audio ({_listed(AUDIO_SUFFIXES)}) nor a manifest "
            f"({_listed(SUFFIXES)})"
        )
    listing = list_audio(source, spec.skip_folders)
    if len(listing.files):
        return read_files(listing, kind="folder")
    if partitions(source.rstrip("/")):
        return SourceContent("manifest", read_manifest(source))
    seen = _counts(dict(listing.skipped)) or "nothing at all"
    closed = f" and {len(listing.unreadable)} folders without rights" if listing.unreadable else ""
    raise UnusableError(
        f"no audio files in {source}: it has {seen}{closed}; audio is {_listed(AUDIO_SUFFIXES)}"
    )


def read_files(listing: Listing, *, kind: str) -> SourceContent:
    """The listed files' tags, and dead letters for unreadable files."""
    files = listing.files
    progress = Progress("scan", len(files), unit="files")
    parts = []
    for part in on_cluster(files) if len(files) >= RAY_FROM else in_process(files):
        parts.append(part)
        progress.advance(len(part))
    read = pa.concat_tables(parts)
    failed = read.filter(read["code"].is_valid()).select(DEAD_LETTER.names)
    folders = pa.Table.from_pylist(listing.unreadable, schema=DEAD_LETTER)
    good = read.filter(read["code"].is_null())
    return SourceContent(
        kind,
        check_tracks(good.select(SCHEMA.names)),
        errors=pa.concat_tables([failed.cast(DEAD_LETTER), folders]),
        skipped=dict(listing.skipped.most_common()),
        by_name=len(good) - (pc.sum(good["named_by_tag"]).as_py() or 0),
    )


def in_process(files: pa.Table) -> Iterator[pa.Table]:
    """`read_tags` in this process, a batch at a time."""
    for start in range(0, len(files), BATCH_FILES):
        yield read_tags(files.slice(start, BATCH_FILES))


def on_cluster(files: pa.Table) -> Iterator[pa.Table]:
    """`read_tags` on all the cores of the cluster; batches come in any order."""
    import ray.data

    from jobs.cluster import start_ray

    start_ray()
    pipeline = (
        ray.data.from_arrow(files)
        .repartition(target_num_rows_per_block=BATCH_FILES)
        .map_batches(read_tags, batch_size=None, batch_format="pyarrow", num_cpus=1)
    )
    yield from arrow_batches(pipeline)


def write_catalog(workspace: Workspace, tracks: pa.Table, errors: pa.Table) -> None:
    """Replaces the old catalog with the new one."""
    storage.replace_tables(workspace.tracks, tracks)
    letters = f"{workspace.catalog}/dead_letter"
    if len(errors):
        storage.write_table(f"{letters}/part-00000.parquet", errors)
    else:
        storage.delete(letters)


def _listed(suffixes: frozenset[str] | tuple[str, ...]) -> str:
    return " ".join(sorted(suffixes))


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _changes(counts: dict[str, int]) -> str:
    """`moved 312, retagged 1,204, new 17`."""
    words = {"copies": "the sound of another file"}
    return ", ".join(f"{words.get(name, name)} {count:,}" for name, count in counts.items())


def describe(answer: ScanAnswer) -> str:
    """The answer in a few lines."""
    lines = [
        f"catalog of {answer['tracks']:,} tracks by {answer['artists']:,} artists, "
        f"{answer['with_audio']:,} with audio, {answer['hours']:,.1f} hours known",
        f"splits    {_counts(answer['splits'])}",
    ]
    if answer["tags"]:
        lines.append(
            f"tags      {', '.join(f'{tag} ({n:,})' for tag, n in answer['tags'].items())}"
        )
    if answer["extras"]:
        extras = ", ".join(f"{name} ({kind})" for name, kind in answer["extras"].items())
        lines.append(f"extras    {extras}")
    if answer["similar_artists"]:
        similar = answer["similar_artists"]
        lines.append(f"graph     has {similar['matched']:,} of {similar['artists']:,} artists")
    changes = {name: count for name, count in answer["files"].items() if count}
    if set(changes) - {"new"}:
        lines.append(f"files     {_changes(changes)}")
    if answer["by_name"]:
        lines.append(f"by name   {answer['by_name']:,} have no title in their tags, or no tags")
    if answer["skipped"]:
        lines.append(f"skipped   {_counts(answer['skipped'])}")
    if answer["missing"] and answer["missing"]["absent"]:
        lines.append(
            "absent    {absent:,} of {looked_for:,} files, as {example}".format(**answer["missing"])
        )
    if answer["errors"]:
        lines.append(f"errors    {answer['errors']:,}; see catalog/dead_letter")
    return "\n".join(lines)


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
