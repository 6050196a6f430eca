"""The model hub and its cache on this machine: files of a repository, as a folder.

Is there a hub to ask? That is one short question here, so that no library waits a minute for an
answer: `huggingface_hub` retries by itself, and prints a page when it gives up.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from raymtr.errors import InputError, UnusableError

TIMEOUT_S = 5.0


def require_hub(name: str, *, cure: str) -> None:
    """Pass where the hub answers; else raise UnusableError saying that `name` needs it."""
    from huggingface_hub import constants

    why = None
    if constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set"
    else:
        try:
            urlopen(constants.ENDPOINT, timeout=TIMEOUT_S).close()
        except HTTPError:
            pass  # an answer, if not a friendly one
        except (OSError, HTTPException, ValueError) as error:
            why = str(getattr(error, "reason", error))
    if why:
        raise UnusableError(
            f"{name!r} needs the hub at {constants.ENDPOINT}, no answer: {why}; {cure}"
        )


def looks_like_folder(name: str) -> bool:
    """Whether a name that is no folder was surely meant as one: absolute, `./`, or too deep."""
    return name.startswith((os.sep, ".", "~")) or name.count("/") > 1


def cached_folder(repo: str, files: Sequence[str]) -> Path | None:
    """What the hub's cache on this machine holds of the repository; None where that is nothing.

    It need not be whole: others keep only the files they read. `files` are patterns.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, allow_patterns=list(files), local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def download(repo: str, files: Sequence[str]) -> Path:
    """The repository's files that match the patterns, fetched into the hub's cache.

    Raises InputError where the hub has no such repository, UnusableError where it fails.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(repo, allow_patterns=list(files)))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InputError(f"the hub has no model {repo!r} that is open to you") from error
    except OSError as error:
        raise UnusableError(f"cannot fetch {repo} from the hub: {error}") from error
