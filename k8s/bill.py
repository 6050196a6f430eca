"""The bill of materials of this Python environment: the packages in the image and their licences.

    python bill.py FOLDER      sbom.json (CycloneDX 1.6), licences.tsv, and the licence texts

It is read from the installed packages themselves, so it cannot differ from what is shipped.
Scanners accept sbom.json unchanged. Limitation: it lacks file hashes and the system's packages,
which `dpkg -l` lists in the image.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

COPYLEFT = re.compile(r"\bA?GPL|\bGNU (Affero )?General Public|GPLv[23]")
LESSER = re.compile(r"\bLGPL|Lesser General Public|Library General Public")
LICENCE_FILE = re.compile(r"(^|/)(LICEN[CS]E|COPYING|NOTICE)[^/]*$", re.IGNORECASE)
MOST_NAME = 100  # some packages put the whole licence text in the name field


def licence_of(package: metadata.Distribution) -> str:
    """The licence a package states: its SPDX expression, its classifiers, or free text."""
    fields = package.metadata
    for expression in fields.get_all("License-Expression") or []:
        return str(expression)
    classified = [
        line.rsplit(" :: ", 1)[-1]
        for line in fields.get_all("Classifier") or []
        if line.startswith("License ::") and not line.endswith("OSI Approved")
    ]
    if classified:
        return " AND ".join(classified)
    for words in fields.get_all("License") or []:
        return str(words).strip().splitlines()[0][:MOST_NAME]
    return "not stated"


def is_copyleft(licence: str) -> bool:
    """Whether the licence imposes duties on derived or bundled work: GPL or AGPL, not LGPL."""
    return bool(COPYLEFT.search(LESSER.sub("", licence)))


def packages() -> list[metadata.Distribution]:
    """The installed packages by name, without duplicates."""
    found = {str(p.metadata["Name"]).lower(): p for p in metadata.distributions()}
    return [found[name] for name in sorted(found)]


def sbom() -> dict[str, Any]:
    """A CycloneDX document of the environment."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": "raymtr"}},
        "components": [
            {
                "type": "library",
                "name": str(p.metadata["Name"]),
                "version": p.version,
                "purl": f"pkg:pypi/{str(p.metadata['Name']).lower()}@{p.version}",
                "licenses": [{"license": {"name": licence_of(p)}}],
            }
            for p in packages()
        ],
    }


def write(folder: Path) -> None:
    """Writes both lists, and each package's licence files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sbom.json").write_text(json.dumps(sbom(), indent=1), encoding="utf-8")
    lines = []
    for package in packages():
        name = str(package.metadata["Name"])
        licence = licence_of(package)
        mark = "copyleft" if is_copyleft(licence) else ""
        lines.append("\t".join((name, package.version, licence, mark)))
        for number, path in enumerate(package.files or []):
            if LICENCE_FILE.search(str(path)) and Path(str(path.locate())).is_file():
                text = folder / "texts" / name / f"{number}-{Path(path).name}"
                text.parent.mkdir(parents=True, exist_ok=True)
                text.write_bytes(Path(str(path.locate())).read_bytes())
    (folder / "licences.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
