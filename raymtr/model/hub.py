"""Is there a model hub to ask? One short question, so that no library waits a minute for an answer.

`huggingface_hub` and `transformers` retry by themselves, and print a page when they give up.
Whoever needs the hub asks here first.
"""

from __future__ import annotations

import os
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import urlopen

from raymtr.errors import UnusableError

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
