"""The model hub and its cache on this machine: the files of a repository as a folder.

One short request checks here whether a hub answers. Without it `huggingface_hub` retries for about
a minute and then prints a long error.
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
    """Return where the hub answers; else raise UnusableError saying that `name` needs it."""
    from huggingface_hub import constants

    why = None
    if constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set"
    else:
        try:
            urlopen(constants.ENDPOINT, timeout=TIMEOUT_S).close()
        except HTTPError:
            pass  # the hub answers, if with an error
        except (OSError, HTTPException, ValueError) as error:
            why = str(getattr(error, "reason", error))
    if why:
        raise UnusableError(
            f"{name!r} needs the hub at {constants.ENDPOINT}, which did not answer: {why}; {cure}"
        )


def looks_like_folder(name: str) -> bool:
    """Whether a name that is not a folder can only mean one: absolute, `./`, too many slashes."""
    return name.startswith((os.sep, ".", "~")) or name.count("/") > 1


def cached_folder(repo: str, files: Sequence[str]) -> Path | None:
    """The repository's files in the hub's cache on this machine; None where there are none.

    The copy may be incomplete, since other programs cache only the files they read. `files` are
    patterns.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, allow_patterns=list(files), local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def download(repo: str, files: Sequence[str]) -> Path:
    """Download the repository's files that match the patterns into the hub's cache.

    Raises InputError where the hub has no such repository, UnusableError where the download fails.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(repo, allow_patterns=list(files)))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InputError(f"the hub has no model {repo!r} that you can read") from error
    except OSError as error:
        raise UnusableError(f"cannot fetch {repo} from the hub: {error}") from error
