"""Packages that the extra `jobs` leaves out because of their dependencies; the demo installs them.

tinysoundfont requires PyAudio, which is for playback alone and has to be compiled. musicnn requires
a TensorFlow of 2019, and only the weights in it are used.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import subprocess
import sys

from raymtr.errors import UnusableError

LOG = logging.getLogger("raymtr")
SYNTHESISER = "tinysoundfont==0.3.7"


def require_synthesiser() -> None:
    """Installs the synthesiser if it is missing. Raises UnusableError if pip fails."""
    _require(SYNTHESISER)


def require_taggers() -> None:
    """Installs the taggers' weights if they are missing. Raises UnusableError if pip fails."""
    from raymtr.model.musicnn import PACKAGE, VERSION

    _require(f"{PACKAGE}=={VERSION}")


def _require(requirement: str) -> None:
    if importlib.util.find_spec(requirement.partition("==")[0]):
        return
    LOG.info("installing %s without its dependencies, which are not needed", requirement)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", requirement]
    if subprocess.run(command, stdout=sys.stderr).returncode:
        raise UnusableError(f"the demo needs {requirement}: pip install --no-deps {requirement}")
    importlib.invalidate_caches()
