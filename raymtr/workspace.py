"""Workspace: the paths of all artefacts under one root URI, shared by all jobs.

A workspace is a folder or an object-store prefix. Its `workspace.json` has the layout version, so a
workspace of another layout is refused with a clear error.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from raymtr import storage
from raymtr.errors import InputError, UnusableError

FETCHED = "fetched.json"  # the file of a fetched model that is written last
LAYOUT = 1  # raised whenever a path or a schema below changes meaning


@dataclass(frozen=True)
class Workspace:
    """Paths under `root`; opening checks the layout, `create` creates a new one."""

    root: str

    @classmethod
    def open(cls, root: str, *, create: bool = False) -> Workspace:
        """The workspace at `root`.

        Raises InputError where there is none (and `create` is false), UnusableError where its
        layout has another version.
        """
        local = not storage.is_remote(root)
        root = os.path.abspath(storage.local_path(root)) if local else root.rstrip("/")
        here = cls(root)
        if storage.exists(here.marker):
            try:
                layout = storage.read_json(here.marker)["layout"]
            except (ValueError, KeyError, TypeError) as error:
                raise UnusableError(f"{here.marker} is damaged; use another folder") from error
            if layout != LAYOUT:
                raise UnusableError(
                    f"workspace {root} has layout {layout}, this raymtr reads layout {LAYOUT}; "
                    "use the raymtr that made it, or another --workspace"
                )
        elif create:
            storage.write_json(here.marker, {"layout": LAYOUT})
        else:
            raise InputError(f"no workspace at {root}; `raymtr scan` makes one")
        return here

    def path(self, *parts: str) -> str:
        """A URI under the root."""
        return "/".join((self.root, *parts))

    @property
    def marker(self) -> str:
        """The document with the layout version."""
        return self.path("workspace.json")

    @property
    def catalog(self) -> str:
        """Folder of `tracks/`, `dead_letter/` and `summary.json`."""
        return self.path("catalog")

    @property
    def tracks(self) -> str:
        """Folder of the catalog's Parquet files, one row per track."""
        return self.path("catalog", "tracks")

    @property
    def captions(self) -> str:
        """Folder of the captions' Parquet files, one row per caption."""
        return self.path("captions")

    @property
    def captioner(self) -> str:
        """Folder of the fine-tuned captioner: a PEFT adapter and what it needs."""
        return self.path("captioner")

    @property
    def towers(self) -> str:
        """Folder of training runs."""
        return self.path("towers")

    def run(self, name: str) -> str:
        """Folder of one training run: `model/` once finished, checkpoints, metrics."""
        if not name or "/" in name or name.startswith("."):
            raise InputError(f"a run's name is one folder name, got {name!r}")
        return self.path("towers", name)

    def newest_model(self, marker: str = "config.json") -> str | None:
        """Model folder, with the file `marker`, of the run that finished last; None without one."""
        models = [f"{self.run(name)}/model" for name in storage.list_folders(self.towers)]
        finished = [f"{model}/{marker}" for model in models if storage.exists(f"{model}/{marker}")]
        if not finished:
            return None
        return max(finished, key=storage.modified_s).removesuffix(f"/{marker}")

    def fetched(self, name: str) -> str:
        """Folder of the model or text encoder fetched as `name`; complete once it has FETCHED.

        Raises InputError where `name` is not a valid model name.
        """
        if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name, re.ASCII):
            raise InputError(f"a model's name is NAME or OWNER/NAME, got {name!r}")
        return self.path("models", name.replace("/", "--"))

    def model(self, source: str) -> str:
        """The workspace's own copy where `source` names a fetched model, else `source` itself."""
        try:
            folder = self.fetched(source)
        except InputError:
            return source
        here = not os.path.isdir(source) and storage.exists(f"{folder}/{FETCHED}")
        return folder if here else source

    def embeddings(self, fingerprint: str) -> str:
        """Folder of one model's vectors: `tracks/`, `windows/`, `dead_letter/`, `model/`."""
        return self.path("embeddings", fingerprint)

    def features(self, fingerprint: str) -> str:
        """Folder of one audio tower's features: `tracks/`, `windows/`, `dead_letter/`."""
        return self.path("features", fingerprint)

    def tokens(self, fingerprint: str) -> str:
        """Folder of one set of parts and its tokens: `tracks/`, `windows/`, `parts/`, `model/`."""
        return self.path("tokens", fingerprint)

    @property
    def generated(self) -> str:
        """Folder of generated clips: `clips/` and their manifest's Parquet files."""
        return self.path("generated")

    def trained(self, source: str) -> str:
        """Model folder of the run that `source` names, else `model(source)`."""
        if "/" not in source and not source.startswith("."):
            folder = f"{self.run(source)}/model"
            if storage.exists(folder):
                return folder
        return self.model(source)

    @property
    def heard(self) -> str:
        """Folder of tags and measured attributes: `tracks/`, `windows/`, `dead_letter/`."""
        return self.path("heard")

    @property
    def db(self) -> str:
        """The LanceDB database; `live.json` in it names the live build's tables."""
        return self.path("db")

    @property
    def live_pointer(self) -> str:
        """The record of the live build; absent where nothing is published yet."""
        return self.path("db", "live.json")

    def require_live(self) -> None:
        """Raise InputError where nothing is published yet."""
        if not storage.exists(self.live_pointer):
            raise InputError(f"nothing to search in {self.root} yet; run `raymtr index` first")

    @property
    def duplicates(self) -> str:
        """Folder of the Parquet file that groups the tracks of one song, one row per track."""
        return self.path("duplicates")

    @property
    def catalog_parts(self) -> str:
        """Folder of the partitions of a large catalog; it may be deleted at any time."""
        return self.path("cache", "catalog")

    @property
    def index_parts(self) -> str:
        """Folder of the partitions that `index` reads; it may be deleted at any time."""
        return self.path("cache", "index")

    @property
    def audio_cache(self) -> str:
        """Folder of decoded audio that is read more than once."""
        return self.path("cache", "audio")
