"""`raymtr evaluate generation`: the clips of `generate --prompts` beside held-out recordings.

The judges are the towers of the model's joint tokens, and musicnn. The first is not independent of
the model, which was conditioned on those towers' text vectors. KLD is that of the packaged taggers.
With `--memorisation MODEL` it measures instead how much of its training tracks a model repeats.
With `--against FINGERPRINT` a reader compares two models' clips blind: jobs.evaluate_wins.

Output: `evaluation/generation.json`, or `evaluation/memorisation.json`.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, TypedDict, final

import numpy as np
import pyarrow.compute as pc

from jobs import evaluate_wins
from raymtr import audio, storage
from raymtr.errors import InputError
from raymtr.evaluation.clips import ClipRow, clips_of
from raymtr.evaluation.generation import (
    FEWEST,
    PromptFigures,
    frechet_at_infinity,
    frechet_distance,
    kl_divergence,
    prompt_figures,
)
from raymtr.generation.marker import choose_musiclm
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    from raymtr.evaluation.memorisation import PrefixFigures, TrackTokens
    from raymtr.evaluation.vggish import VGGish
    from raymtr.generation.musiclm import MusicLM
    from raymtr.tagging.analysis import Analyzer

OWN = ("clips", "against", "memorisation", "blind", "scores")
SEED = 0
MOST_TRACKS = 200  # tracks of training, and as many held-out ones
MOST_OF_A_PROMPT = 20  # held-out tracks that a prompt stands for
MOST_REAL = 500  # held-out tracks that clips are compared with


class FrechetFigures(TypedDict):
    """The Frechet distance of clips to recordings, as it is and for infinitely many clips."""

    embeddings: int  # of the clips: one per clip, by VGGish one per 0.96 s
    fad: float
    fad_at_infinity: float


class LabelDivergence(TypedDict):
    """KLD of clips from held-out tracks that have the prompt as a tag."""

    classifier: str
    clips: int
    kld: float  # nats


@final
class MemorisationAnswer(TypedDict):
    """How much of its training tracks a model repeats, by the length of what is given."""

    model: str  # its fingerprint
    memorisation: list[PrefixFigures]
    file: str


@final
class GenerationAnswer(TypedDict):
    """Figures of one model's clips, and where they were written."""

    model: str  # its fingerprint
    clips: int
    real: int  # recordings
    prompts: PromptFigures
    fad: dict[str, FrechetFigures]  # by embedding
    kld: LabelDivergence | None  # None where no prompt is a tag
    file: str


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Adds the arguments of `generation`."""
    parser.add_argument(
        "--clips", metavar="FINGERPRINT", help="of a model in generated/; needed if there are more"
    )
    parser.add_argument(
        "--memorisation",
        metavar="MODEL",
        help="a MusicLM run or folder: how much of its training it repeats, in place of clips",
    )
    parser.add_argument(
        "--vggish",
        metavar="FILE",
        help="VGGish's weights, vggish-10086976.pth of torchvggish: FAD by it as well",
    )
    parser.add_argument(
        "--against",
        metavar="FINGERPRINT",
        help="of a second model in generated/: blind pairs with --clips, by --blind or --scores",
    )


Answer = (
    GenerationAnswer | MemorisationAnswer | evaluate_wins.WinsPageAnswer | evaluate_wins.WinsAnswer
)


def run(arguments: argparse.Namespace, workspace: Workspace) -> Answer:
    """The command-line entry point."""
    ways = [bool(arguments.memorisation), arguments.blind is not None, bool(arguments.scores)]
    if sum(ways) > 1 or (arguments.against and not any(ways[1:])):
        raise InputError(
            "`raymtr evaluate generation` takes one of --memorisation MODEL, --blind N and "
            "--scores CSV; the last two compare --clips with --against"
        )
    if arguments.vggish and any(ways):
        raise InputError("--vggish is for FAD; omit --memorisation, --blind and --scores")
    models = {"clips": arguments.clips, "against": arguments.against, "out": arguments.out}
    if arguments.blind is not None:
        return evaluate_wins.write_page(workspace, **models, count=arguments.blind)
    if arguments.scores:
        return evaluate_wins.read_choices(workspace, **models, scores=arguments.scores)
    if arguments.memorisation:
        if arguments.clips:
            raise InputError("--memorisation measures a model and --clips its clips; give one")
        return evaluate_memorisation(workspace, arguments.memorisation, out=arguments.out)
    return evaluate_generation(
        workspace, clips=arguments.clips, vggish=arguments.vggish, out=arguments.out
    )


def evaluate_generation(
    workspace: Workspace,
    *,
    clips: str | None = None,
    vggish: str | None = None,
    out: str | None = None,
) -> GenerationAnswer:
    """FAD by two embeddings, MCC and ranks of one model's clips.

    `vggish` is a file of VGGish's weights, for FAD by a third embedding. Raises InputError where
    there are too few clips, no held-out recordings to compare with, or other weights in the file.
    """
    from raymtr.evaluation.vggish import read_vggish
    from raymtr.model.pretrained import load_model

    network = read_vggish(vggish) if vggish else None
    rows = clips_of(workspace, clips)
    if len(rows) < FEWEST:
        raise InputError(f"{len(rows)} clips are too few to measure, at least {FEWEST} are needed")
    towers = load_model(f"{workspace.tokens(rows[0]['parts'])}/model")
    real = _held_out(workspace)
    prompts = sorted({row["prompt"] for row in rows})
    number = {prompt: place for place, prompt in enumerate(prompts)}
    vectors = towers.encode_audio([row["uri"] for row in rows])
    figures = prompt_figures(
        vectors, towers.encode_text(prompts), np.array([number[row["prompt"]] for row in rows])
    )
    answer: GenerationAnswer = {
        "model": rows[0]["model"],
        "clips": len(rows),
        "real": len(real),
        "prompts": figures,
        "fad": {
            f"towers {towers.fingerprint}": _fad(vectors, towers.encode_audio(real)),
            "musicnn-msd": _fad(
                np.stack([_musicnn(row["uri"]) for row in rows]),
                np.stack([_musicnn(uri) for uri in real]),
            ),
            **({"vggish": _fad_by_vggish(network, rows, real)} if network else {}),
        },
        "kld": _kld(workspace, rows),
        "file": f"{out or workspace.path('evaluation')}/generation.json",
    }
    storage.write_json(answer["file"], answer)
    return answer


def evaluate_memorisation(
    workspace: Workspace, model: str, *, out: str | None = None
) -> MemorisationAnswer:
    """Exact and approximate matches of a model with its training tracks, beside held-out ones.

    Raises InputError where the workspace has no tokens of the model's parts, or too few tracks.
    """
    from raymtr.evaluation.memorisation import memorisation
    from raymtr.generation.musiclm_folder import read_musiclm

    made = read_musiclm(choose_musiclm(workspace, model))
    tracks = {split: _track_tokens(workspace, made, split) for split in ("train", "test")}
    answer: MemorisationAnswer = {
        "model": made.fingerprint,
        "memorisation": memorisation(made, tracks["train"], tracks["test"], seed=SEED),
        "file": f"{out or workspace.path('evaluation')}/memorisation.json",
    }
    storage.write_json(answer["file"], answer)
    return answer


def _track_tokens(workspace: Workspace, made: MusicLM, split: str) -> list[TrackTokens]:
    """Tracks of a split to be continued, as long as the median track or longer."""
    from raymtr.evaluation.memorisation import TrackTokens, continued_stage
    from raymtr.generation.joint import crop_vector
    from raymtr.generation.token_store import local_tokens

    folder = workspace.tokens(made.parts.fingerprint)
    catalog = storage.read_tables(workspace.tracks, ["track_id", "split"])
    if catalog is None or not storage.list_files(f"{folder}/tracks", suffix=".parquet"):
        raise InputError(
            f"{workspace.root} has no tokens of the parts {made.parts.fingerprint}, which model "
            f"{made.fingerprint} was trained on; run `raymtr tokenize`, or name another workspace"
        )
    wanted = catalog.filter(pc.equal(catalog["split"], split))["track_id"].combine_chunks()
    tokens = local_tokens(folder)
    name = continued_stage(made)
    lengths = pc.list_value_length(tokens[name])
    long = pc.greater_equal(lengths, pc.quantile(lengths, 0.5)[0])
    rows = tokens.filter(pc.and_(long, pc.is_in(tokens["track_id"], value_set=wanted)))
    found, levels = [], made.stages.of(name).output.levels
    for row in rows.slice(0, MOST_TRACKS).to_pylist():
        vectors = np.asarray(row["vectors"], np.float32).reshape(len(row["starts_s"]), -1)
        crop_s = made.stages.crop_s(name)
        vector = crop_vector(np.asarray(row["starts_s"]), vectors, 0.0, crop_s)
        joint = made.parts.joint.of_audio(vector[None])
        found.append(TrackTokens(joint, np.asarray(row[name], np.int64).reshape(-1, levels)))
    return found


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
        "embeddings": len(made),
        "fad": frechet_distance(made, real),
        "fad_at_infinity": frechet_at_infinity(made, real, seed=SEED),
    }


def _fad_by_vggish(network: VGGish, rows: list[ClipRow], real: list[str]) -> FrechetFigures:
    """FAD over windows of 0.96 s, as in its paper. Raises InputError if the clips have too few."""
    from raymtr.evaluation.vggish import AUDIO

    made, true = (
        np.concatenate([network.encode(audio.decode(uri, AUDIO).samples) for uri in uris])
        for uris in ([row["uri"] for row in rows], real)
    )
    if min(len(made), len(true)) < FEWEST:
        raise InputError(
            f"the clips have {len(made)} windows of VGGish (0.96 s) and the recordings {len(true)},"
            f" at least {FEWEST} are needed"
        )
    return _fad(made, true)


def _kld(workspace: Workspace, rows: list[ClipRow]) -> LabelDivergence | None:
    """KLD of clips from the held-out tracks that have the prompt as a tag; None without any."""
    from raymtr.tagging.analysis import VERSION, Analyzer

    catalog = storage.read_tables(workspace.tracks, ["uri", "split", "tags"])
    tracks = [] if catalog is None else catalog.to_pylist()
    tagged: dict[str, list[str]] = {}
    for row in tracks:
        for tag in (row["tags"] or ()) if row["split"] == "test" and row["uri"] else ():
            tagged.setdefault(tag.casefold(), []).append(row["uri"])
    compared = [row for row in rows if row["prompt"].casefold() in tagged]
    if not compared:
        return None
    analyzer = Analyzer()
    of_prompt = {
        prompt: np.mean([_tags(analyzer, uri) for uri in tagged[prompt][:MOST_OF_A_PROMPT]], axis=0)
        for prompt in {row["prompt"].casefold() for row in compared}
    }
    generated = np.stack([_tags(analyzer, row["uri"]) for row in compared])
    real = np.stack([of_prompt[row["prompt"].casefold()] for row in compared])
    return {"classifier": VERSION, "clips": len(compared), "kld": kl_divergence(generated, real)}


def _tags(analyzer: Analyzer, uri: str) -> np.ndarray:
    """The probabilities of the packaged taggers' labels, the mean over windows, float64 [L]."""
    from raymtr.tagging.analysis import TAGGED_AUDIO

    return analyzer.labels(audio.windows(audio.decode(uri, TAGGED_AUDIO).samples, TAGGED_AUDIO)[1])


def _musicnn(uri: str) -> np.ndarray:
    """The mean over windows of musicnn's last layer, float32 [200]."""
    import torch

    from raymtr.model.log_mel import LogMel
    from raymtr.model.musicnn import AUDIO, read_musicnn

    waves = audio.windows(audio.decode(uri, AUDIO).samples, AUDIO)[1]
    with torch.inference_mode():
        dense = read_musicnn("musicnn-msd")(LogMel(AUDIO)(torch.from_numpy(waves))).dense
    return np.asarray(dense.mean(dim=0).numpy())


def describe(answer: Answer) -> str:
    """The figures, a line each."""
    if "page" in answer or "wins" in answer:
        return evaluate_wins.describe(answer)
    if "memorisation" in answer:
        return _describe_memorisation(answer)
    of = answer["prompts"]
    lines = [
        f"{answer['clips']} clips of model {answer['model']}, {answer['real']} recordings",
        f"MCC {of['mcc']:.3f} (another's prompt {of['mcc_shuffled']:.3f}); own prompt first of "
        f"{of['prompts']}: {of['first']:.2f} (chance {of['chance_first']:.2f}), median rank "
        f"{of['median_rank']:g}",
    ]
    for name, fad in answer["fad"].items():
        lines.append(
            f"FAD by {name}: {fad['fad']:.3f} at {fad['embeddings']} embeddings, "
            f"{fad['fad_at_infinity']:.3f} extrapolated"
        )
    if (kld := answer["kld"]) is not None:
        lines.append(
            f"KLD by {kld['classifier']}: {kld['kld']:.3f} ({kld['clips']} clips whose prompt is a "
            "held-out track's tag)"
        )
    return "\n".join([*lines, f"written to {answer['file']}"])


def _describe_memorisation(answer: MemorisationAnswer) -> str:
    lines = [f"matches of model {answer['model']} with tracks of training (with held-out ones)"]
    for row in answer["memorisation"]:
        training, held_out = row["training"], row["held_out"]
        lines.append(
            f"{row['prefix']:4} tokens given, {row['continued']} continued: exact "
            f"{training['exact']:.3f} ({held_out['exact']:.3f}), approximate "
            f"{training['approximate']:.3f} ({held_out['approximate']:.3f})"
        )
    return "\n".join([*lines, f"written to {answer['file']}"])
