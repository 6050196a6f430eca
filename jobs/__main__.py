"""The command line: `raymtr <verb>`, the same as `python -m jobs.<name>`.

A verb is a job module; this file knows only what all of them share: the common arguments, the
settings, the workspace, and what each outcome means as an exit status (0 done, 1 failed, 2 wrong
use or input, 3 finished above --max-error-rate). Answers go to stdout, everything else to stderr.
Job modules are imported when their verb is called, so that `raymtr --help` is instant.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import errno
import importlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import raymtr
from raymtr.errors import InputError, UnusableError
from raymtr.plain_text import printable
from raymtr.settings import load_settings
from raymtr.workspace import Workspace

VERBS = {  # verb -> its job module and what it does; kept here so that --help imports no job
    "scan": ("scan_catalog", "a folder of audio or a manifest becomes the catalog"),
    "finetune": ("finetune_captioner", "teach a language model to write captions from tags"),
    "caption": ("write_captions", "tags become sentences"),
    "train": ("train_towers", "train the audio and text towers on the catalog"),
    "embed": ("embed_catalog", "turn every track into vectors"),
    "index": ("build_index", "publish the vectors as the live tables"),
    "duplicates": ("find_duplicates", "find tracks that are one song, and how they are alike"),
    "search": ("search", "ask the live tables by words, by track or by audio"),
    "serve": ("serve", "the search endpoint and its page over the live tables"),
    "evaluate": ("evaluate", "measure how well held-out tracks are found"),
    "demo": ("demo", "all of it, on a catalog made on the spot or on your folder"),
    "plan": ("plan", "machines, memory, disk and time that a catalog of some size needs"),
    "doctor": ("doctor", "what works on this machine and what does not"),
}
CURES = {  # by the system's words, which Lance and Arrow repeat
    errno.ENOSPC: "free some space and run the same command again: what is finished is kept",
    errno.EACCES: "it takes rights to read and write there",
    errno.EROFS: "choose a folder that can be written, such as another --workspace",
}
WITHOUT_WORKSPACE = {"doctor", "plan", "demo"}  # the demo makes workspaces of its own
MAKES_WORKSPACE = {"scan", "finetune"}

FAILED, WRONG_USE, TOO_MANY_ERRORS = 1, 2, 3


class _Printable(logging.Formatter):
    """Lines may quote a user's text, and that must not steer the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The line without control characters."""
        return printable(super().format(record))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the process's exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["--version"]:
        print(raymtr.__version__)
        return 0
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        print(f"raymtr: unknown verb {verb!r}; accepted: {', '.join(VERBS)}", file=sys.stderr)
        return WRONG_USE
    return run_verb(verb, rest)


def run_as_module(file: str) -> NoReturn:
    """What `python -m jobs.<name>` does: the verb whose job stands in `file`."""
    verb = next(verb for verb, (name, _) in VERBS.items() if name == Path(file).stem)
    sys.exit(run_verb(verb, sys.argv[1:]))


def overview() -> str:
    """What `raymtr --help` prints."""
    lines = ["raymtr finds music by words.", "", "usage: raymtr <verb> [arguments]", ""]
    for verb, (_, purpose) in VERBS.items():
        lines.append(f"  {verb:10} {purpose}")
    return "\n".join([*lines, "", "`raymtr <verb> --help` tells more, with an example."])


def run_verb(verb: str, argv: Sequence[str]) -> int:
    """Parse, run and report one verb; the exit status."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Printable("%(message)s"))
    logging.getLogger("raymtr").setLevel(logging.INFO)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Without a dashboard a helper of Ray Train says this every second; ray reads it on import.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "Failed to query Ray Train Controller")
    module = importlib.import_module(f"jobs.{VERBS[verb][0]}")
    arguments = parser_of(verb, module).parse_args(argv)
    # Ray repeats its workers' words, and its own, on stdout, some when the process ends (its
    # hook was registered by the import above, so ours runs first); stdout is for the answer alone.
    atexit.register(setattr, sys, "stdout", sys.stderr)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            answer = run_module(verb, module, arguments)
    except InputError as error:
        return _fail(verb, error, WRONG_USE)
    except UnusableError as error:
        return _fail(verb, error, FAILED)
    except OSError as error:
        if error.errno is None:
            raise
        return _fail(verb, error, FAILED)
    if arguments.json:
        print(json.dumps(answer, ensure_ascii=False, allow_nan=False))
    else:
        print(printable(module.describe(answer)))
    if answer.get("ok") is False:
        return FAILED
    rate = answer.get("error_rate") or 0.0
    if rate > arguments.max_error_rate:
        print(
            f"raymtr {verb}: {rate:.1%} failed, more than --max-error-rate "
            f"{arguments.max_error_rate:.1%}; the dead_letter tables say why",
            file=sys.stderr,
        )
        return TOO_MANY_ERRORS
    return 0


def _fail(verb: str, error: Exception, status: int) -> int:
    cures = [cure for code, cure in CURES.items() if os.strerror(code) in str(error)]
    print(printable("; ".join([f"raymtr {verb}: {error}", *cures])), file=sys.stderr)
    return status


def run_module(verb: str, module: ModuleType, arguments: argparse.Namespace) -> dict[str, Any]:
    """Open what the verb needs and run it."""
    settings = load_settings(
        arguments.recipe,
        config=arguments.config,
        environment=os.environ,
        assignments=arguments.set,
    )
    if verb in WITHOUT_WORKSPACE:
        workspace = None
    elif arguments.workspace is None:
        raise InputError("--workspace is missing: the folder or URI that holds all artefacts")
    else:
        workspace = Workspace.open(arguments.workspace, create=verb in MAKES_WORKSPACE)
    answer: dict[str, Any] = module.run(arguments, workspace, settings)
    return answer


def parser_of(verb: str, module: ModuleType) -> argparse.ArgumentParser:
    """The verb's own arguments and the common ones."""
    parser = argparse.ArgumentParser(
        prog=f"raymtr {verb}",
        description=VERBS[verb][1],
        epilog=f"example: {module.EXAMPLE}",
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    common = parser.add_argument_group("common")
    common.add_argument("--workspace", metavar="URI", help="root folder or URI of all artefacts")
    common.add_argument("--recipe", metavar="NAME", help="named settings (default: laptop)")
    common.add_argument("--config", metavar="FILE", help="settings, TOML or JSON")
    common.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="one setting; repeatable"
    )
    common.add_argument("--json", action="store_true", help="answer as one JSON document")
    common.add_argument(
        "--max-error-rate",
        metavar="RATE",
        type=_rate,
        default=0.05,
        help="share of failed rows above which the exit status is 3 (default: 0.05)",
    )
    return parser


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise argparse.ArgumentTypeError(f"a share from 0 to 1, got {text!r}")
    return rate


if __name__ == "__main__":
    sys.exit(main())
