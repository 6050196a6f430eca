"""The command line: `raymtr <verb>`, the same as `python -m jobs.<name>`.

A verb is a job module. This file contains only what all verbs share: the common arguments, the
settings, the workspace, and the mapping of outcomes to exit statuses. Answers go to stdout,
everything else to stderr. Job modules are imported when their verb is called, so that `raymtr
--help` is instant.

Exit status; a retry without any change is useful only after 75:

    0   done
    1   failed: the machine or the data does not allow it, or a bug (then with a traceback)
    2   wrong usage or wrong input
    3   finished, but more than --max-error-rate of the rows failed
    75  the cluster, a node or the object store was lost; the same command resumes
        (EX_TEMPFAIL)
    130 stopped by Ctrl-C; the same command resumes
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import errno
import importlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import raymtr
from jobs.console import set_up_console
from raymtr.errors import InputError, LostError, UnusableError
from raymtr.plain_text import printable
from raymtr.progress import Progress
from raymtr.settings import load_settings
from raymtr.workspace import Workspace

VERBS = {  # verb -> its job module and help; here so that --help imports no job
    "scan": ("scan_catalog", "a folder of audio or a manifest becomes the catalog"),
    "finetune": ("finetune_captioner", "teach a language model to write captions from tags"),
    "caption": ("write_captions", "tags become sentences"),
    "fetch": ("fetch", "download a model or text tower into the workspace, for offline jobs"),
    "tokenize": ("tokenize_catalog", "convert every track to tokens, for `train --recipe musiclm`"),
    "train": ("train_towers", "train the audio and text towers on the catalog"),
    "generate": ("generate", "generate sound from text, with a trained MusicLM"),
    "embed": ("embed_catalog", "compute vectors of every track"),
    "tag": ("tag_catalog", "predict tags, measure tempo, key and loudness; your own tags stay"),
    "index": ("build_index", "publish the vectors as the live tables"),
    "duplicates": ("find_duplicates", "find tracks that are the same song, and how they differ"),
    "search": ("search", "search the live tables by text, by track or by audio"),
    "serve": ("serve", "the search endpoint and its page over the live tables"),
    "evaluate": ("evaluate", "measure how well held-out tracks are found"),
    "demo": ("demo", "the whole pipeline, on a synthetic catalog or on your folder"),
    "plan": ("plan", "estimate machines, memory, disk and time for a catalog"),
    "doctor": ("doctor", "check what works on this machine and what does not"),
}
CURES = {  # keyed by errno, whose text Lance and Arrow repeat
    errno.ENOSPC: "free some space and run the same command again: finished work is kept",
    errno.EACCES: "this needs permission to read and write there",
    errno.EROFS: "choose a folder that can be written, such as another --workspace",
}
STORE_IS_AWAY = (  # in Arrow's error text, after its client has stopped retrying
    "AWS Error NETWORK_CONNECTION",
    "AWS Error SLOW_DOWN",
    "AWS Error SERVICE_UNAVAILABLE",
    "AWS Error INTERNAL_FAILURE",
    "AWS Error REQUEST_TIMEOUT",
    "AWS Error THROTTLING",
)
OWN_PACKAGES = ("raymtr", "jobs", "serve")
INSTALL = "pip install 'raymtr[jobs,serve]' has all that the verbs need"
GO_ON = "run the same command again to continue"
WITHOUT_WORKSPACE = {"doctor", "plan", "demo"}  # the demo creates its own workspaces
MAKES_WORKSPACE = {"scan", "finetune", "fetch"}

FAILED, WRONG_USE, TOO_MANY_ERRORS = 1, 2, 3
LOST = os.EX_TEMPFAIL
LEAST_STORE, STORE_PER_CORE = 512 << 20, 128 << 20  # bytes
STOPPED = 128 + signal.SIGINT  # the shell convention


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the process's exit status."""
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
    """Runs the verb whose job is in `file`, for `python -m jobs.<name>`."""
    verb = next(verb for verb, (name, _) in VERBS.items() if name == Path(file).stem)
    sys.exit(run_verb(verb, sys.argv[1:]))


def overview() -> str:
    """The text of `raymtr --help`."""
    lines = ["raymtr finds music by words.", "", "usage: raymtr <verb> [arguments]", ""]
    for verb, (_, purpose) in VERBS.items():
        lines.append(f"  {verb:10} {purpose}")
    return "\n".join([*lines, "", "`raymtr <verb> --help` lists the arguments, with an example."])


def run_verb(verb: str, argv: Sequence[str]) -> int:
    """Parses the arguments of one verb, runs it and reports the answer; returns the exit status."""
    os.environ.setdefault("RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES", str(object_store_bytes()))
    try:
        module = importlib.import_module(f"jobs.{VERBS[verb][0]}")
    except ModuleNotFoundError as error:
        return _ended(verb, error)
    arguments = parser_of(verb, module).parse_args(argv)
    set_up_console(verbose=arguments.verbose)
    # Ray prints its workers' output and its own on stdout, some of it at process exit. The import
    # above registered Ray's exit hook, so this one runs first. stdout is for the answer alone.
    atexit.register(setattr, sys, "stdout", sys.stderr)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            answer = run_module(verb, module, arguments)
    except _known_errors() as error:
        return _ended(verb, error)
    except KeyboardInterrupt:
        return _stopped(verb)
    if arguments.json:
        print(json.dumps(answer, ensure_ascii=False, allow_nan=False))
    else:
        print(printable(module.describe(answer)))
    if answer.get("ok") is False:
        return FAILED
    rate = answer.get("error_rate")
    if isinstance(rate, float) and rate > arguments.max_error_rate:
        print(
            f"raymtr {verb}: {rate:.1%} failed, more than --max-error-rate "
            f"{arguments.max_error_rate:.1%}; the dead_letter tables have the reasons",
            file=sys.stderr,
        )
        return TOO_MANY_ERRORS
    return 0


def _ended(verb: str, error: Exception) -> int:
    """Reports an error in a sentence and returns the exit status; a bug keeps its traceback."""
    judged = judge(error)
    if judged is None:
        raise error
    status, sentence = judged
    print(printable(f"raymtr {verb}: {sentence}"), file=sys.stderr)
    return status


def _known_errors() -> tuple[type[Exception], ...]:
    """The errors that `judge` may know. Called only after an error, so Ray costs nothing."""
    of_ray = (sys.modules["ray.exceptions"].RayError,) if "ray.exceptions" in sys.modules else ()
    return (InputError, UnusableError, LostError, OSError, ModuleNotFoundError, *of_ray)


def judge(error: Exception) -> tuple[int, str] | None:
    """Exit status and message of an error; None for one that needs its traceback."""
    cause = getattr(error, "cause", error)  # the cause, if raised in a Ray task
    text = "; ".join(
        [str(cause), *(cure for code, cure in CURES.items() if os.strerror(code) in str(cause))]
    )
    if isinstance(cause, InputError):
        return WRONG_USE, text
    if isinstance(cause, ModuleNotFoundError) and not str(cause.name).startswith(OWN_PACKAGES):
        return FAILED, f"a package is missing: {text}; {INSTALL}"
    if isinstance(cause, UnusableError) or (isinstance(cause, OSError) and cause.errno):
        return FAILED, text
    if isinstance(cause, OSError) and any(sign in text for sign in STORE_IS_AWAY):
        return LOST, f"the object store does not answer ({text}); {GO_ON}"
    if _is_lost(cause):
        reason = next(iter(text.strip().splitlines()), type(cause).__name__)
        return LOST, f"the cluster or a node was lost ({reason}); {GO_ON}"
    return None


def _is_lost(error: Exception) -> bool:
    if isinstance(error, (LostError, ConnectionError)):
        return True
    if "ray" not in sys.modules:
        return False
    from jobs.cluster import is_lost

    return is_lost(error)


def _stopped(verb: str) -> int:
    """Reports the progress at Ctrl-C, instead of a stack trace inside Ray, as the last line."""
    if ray := sys.modules.get("ray"):
        ray.shutdown()  # what its processes still say comes before
    at = Progress.latest
    far = f" at {at.done} of {at.total} {at.unit}; {GO_ON}" if at else ""
    print(f"raymtr {verb}: stopped{far}", file=sys.stderr)
    return STOPPED


def object_store_bytes() -> int:
    """Upper limit of a local Ray's object store, bytes: enough for blocks on every core."""
    return max(LEAST_STORE, STORE_PER_CORE * (os.cpu_count() or 1))


def run_module(
    verb: str, module: ModuleType, arguments: argparse.Namespace
) -> Mapping[str, object]:
    """Opens what the verb needs and runs it."""
    settings = load_settings(
        arguments.recipe,
        config=arguments.config,
        environment=os.environ,
        assignments=arguments.set,
    )
    if verb in WITHOUT_WORKSPACE:
        workspace = None
    elif arguments.workspace is None:
        raise InputError("--workspace is missing: the folder or URI of all artefacts")
    else:
        workspace = Workspace.open(arguments.workspace, create=verb in MAKES_WORKSPACE)
    answer: Mapping[str, object] = module.run(arguments, workspace, settings)
    return answer


def parser_of(verb: str, module: ModuleType) -> argparse.ArgumentParser:
    """The parser with the verb's own arguments and the common ones."""
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
        "-v", "--verbose", action="store_true", help="also print the output of Ray and its workers"
    )
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
