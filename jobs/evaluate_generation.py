"""`raymtr evaluate generation`: the clips of `generate --prompts` beside held-out recordings.

The judges are the towers of the model's joint tokens, and musicnn. The first is not independent of
the model, which was conditioned on those towers' text vectors.

Output: `evaluation/generation.json`.
"""

from __future__ import annotations

import argparse
from typing import TypedDict, final

import numpy as np
import pyarrow.compute as pc

from raymtr import audio, storage
from raymtr.errors import InputError
from raymtr.evaluation.generation import (
    FEWEST,
    PromptFigures,
    frechet_at_infinity,
    frechet_distance,
    prompt_figures,
)
from raymtr.workspace import Workspace

OWN = ("clips",)
SEED = 0
MOST_REAL = 500  # held-out tracks that clips are compared with


class FrechetFigures(TypedDict):
    """The Frechet distance of clips to recordings, as it is and for infinitely many clips."""

    fad: float
    fad_at_infinity: float


@final
class GenerationAnswer(TypedDict):
    """Figures of one model's clips, and where they were written."""

    model: str  # its fingerprint
    clips: int
    real: int  # recordings
    prompts: PromptFigures
    fad: dict[str, FrechetFigures]  # by embedding
    file: str


class ClipRow(TypedDict):
    """What is used of a clip's row in the manifest."""

    uri: str
    prompt: str
    model: str
    parts: str  # their fingerprint


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Adds the arguments of `generation`."""
    parser.add_argument(
        "--clips", metavar="FINGERPRINT", help="of a model in generated/; needed if there are more"
    )


def run(arguments: argparse.Namespace, workspace: Workspace) -> GenerationAnswer:
    """The command-line entry point."""
    return evaluate_generation(workspace, clips=arguments.clips, out=arguments.out)


def evaluate_generation(
    workspace: Workspace, *, clips: str | None = None, out: str | None = None
) -> GenerationAnswer:
    """FAD by two embeddings, MCC and ranks of one model's clips.

    Raises InputError where there are too few clips, or no held-out recordings to compare with.
    """
    from raymtr.model.pretrained import load_model

    rows = _clips(workspace, clips)
    towers = load_model(f"{workspace.tokens(rows[0]['parts'])}/model")
    real = _held_out(workspace)
    prompts = sorted({row["prompt"] for row in rows})
    number = {prompt: place for place, prompt in enumerate(prompts)}
    made = towers.encode_audio([row["uri"] for row in rows])
    figures = prompt_figures(
        made, towers.encode_text(prompts), np.array([number[row["prompt"]] for row in rows])
    )
    answer: GenerationAnswer = {
        "model": rows[0]["model"],
        "clips": len(rows),
        "real": len(real),
        "prompts": figures,
        "fad": {
            f"towers {towers.fingerprint}": _fad(made, towers.encode_audio(real)),
            "musicnn-msd": _fad(
                np.stack([_musicnn(row["uri"]) for row in rows]),
                np.stack([_musicnn(uri) for uri in real]),
            ),
        },
        "file": f"{out or workspace.path('evaluation')}/generation.json",
    }
    storage.write_json(answer["file"], answer)
    return answer


def _clips(workspace: Workspace, fingerprint: str | None) -> list[ClipRow]:
    """Manifest rows of one model's clips that did not fail."""
    root = workspace.generated
    found = [n for n in storage.list_folders(root) if storage.exists(f"{root}/{n}/manifest")]
    seen = ", ".join(found) or "none"
    if fingerprint is None and len(found) > 1:
        raise InputError(f"{root} has clips of several models; choose by --clips: {seen}")
    if not found or (fingerprint is not None and fingerprint not in found):
        raise InputError(
            f"no clips of {fingerprint or 'any model'} in {root} (there are: {seen}); run `raymtr "
            "generate --prompts FILE`"
        )
    table = storage.read_tables(f"{root}/{fingerprint or found[0]}/manifest")
    assert table is not None, "a manifest folder has a file"
    rows: list[ClipRow] = table.filter(pc.is_null(table["code"])).to_pylist()
    if len(rows) < FEWEST:
        raise InputError(f"{len(rows)} clips are too few to measure, at least {FEWEST} are needed")
    return rows


def _held_out(workspace: Workspace) -> list[str]:
    """URIs of held-out recordings, the split `test`."""
    catalog = storage.read_tables(workspace.tracks, ["uri", "split"])
    rows = [] if catalog is None else catalog.to_pylist()
    uris = [row["uri"] for row in rows if row["split"] == "test" and row["uri"]]
    if len(uris) < FEWEST:
        raise InputError(
            f"{len(uris)} tracks of split 'test' have audio; at least {FEWEST} are needed to "
            "compare clips with"
        )
    return uris[:: max(1, len(uris) // MOST_REAL)][:MOST_REAL]


def _fad(made: np.ndarray, real: np.ndarray) -> FrechetFigures:
    return {
        "fad": frechet_distance(made, real),
        "fad_at_infinity": frechet_at_infinity(made, real, seed=SEED),
    }


def _musicnn(uri: str) -> np.ndarray:
    """The mean over windows of musicnn's last layer, float32 [200]."""
    import torch

    from raymtr.model.log_mel import LogMel
    from raymtr.model.musicnn import AUDIO, read_musicnn

    waves = audio.windows(audio.decode(uri, AUDIO).samples, AUDIO)[1]
    with torch.inference_mode():
        dense = read_musicnn("musicnn-msd")(LogMel(AUDIO)(torch.from_numpy(waves))).dense
    return np.asarray(dense.mean(dim=0).numpy())


def describe(answer: GenerationAnswer) -> str:
    """The figures, a line each."""
    of = answer["prompts"]
    lines = [
        f"{answer['clips']} clips of model {answer['model']}, {answer['real']} recordings",
        f"MCC {of['mcc']:.3f} (another's prompt {of['mcc_shuffled']:.3f}); own prompt first of "
        f"{of['prompts']}: {of['first']:.2f} (chance {of['chance_first']:.2f}), median rank "
        f"{of['median_rank']:g}",
    ]
    for name, fad in answer["fad"].items():
        lines.append(
            f"FAD by {name}: {fad['fad']:.3f} at {answer['clips']} clips, "
            f"{fad['fad_at_infinity']:.3f} extrapolated"
        )
    return "\n".join([*lines, f"written to {answer['file']}"])
