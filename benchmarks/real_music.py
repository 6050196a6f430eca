"""Model quality on real music: the tags of real recordings as queries.

    python benchmarks/real_music.py --data ../shared/data/real_music [--model musicnn-minilm]

A value of the tag, genre or vocal column with at least three tracks is a query. A track's vector is
the mean of its clips' unit vectors. The figures are the means over queries of nDCG@10 and of the
area under the ROC curve. Also printed: chance (1,000 random rankings), and the same with every file
12 dB quieter, and with every second one. Nothing here is trained on.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

import raymtr
from raymtr import metrics
from raymtr.audio import decode
from raymtr.model.model import Model
from raymtr.vectors import unit

FEWEST = 3  # minimum tracks of a queried tag
QUIETER = 10 ** (-12 / 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="musicnn-minilm")
    arguments = parser.parse_args()
    with open(arguments.data / "tracks.csv", encoding="utf-8") as file:
        tracks = [row for row in csv.DictReader(file) if not row["error"]]
    model = raymtr.load_model(arguments.model)
    queries, relevant = read_queries(tracks)
    text = model.encode_text(queries)
    loud, quiet = (embed(model, tracks, arguments.data, gain) for gain in (1.0, QUIETER))
    mixed = np.where(np.arange(len(tracks))[:, None] % 2, loud, quiet)
    print(f"{len(tracks)} tracks, {len(queries)} queries, model {arguments.model}")
    random = metrics.random_ndcgs_at(relevant, k=10, draws=1000, rng=np.random.default_rng(0))
    print(f"{'chance':20} nDCG@10 {random.mean():.3f}, AUC 0.500")
    for name, audio in (("as made", loud), ("all 12 dB quieter", quiet), ("half of them", mixed)):
        gains = metrics.ndcgs_at(text @ audio.T, relevant, k=10)
        areas = metrics.roc_aucs(text @ audio.T, relevant)
        print(f"{name:20} nDCG@10 {gains.mean():.3f}, AUC {areas.mean():.3f}")
        if audio is loud:
            each = [
                f"  {query:20} of {row.sum():3}: nDCG@10 {gain:.2f}, AUC {area:.2f}"
                for query, row, gain, area in zip(queries, relevant, gains, areas, strict=True)
            ]
    print("\n".join(each))


def read_queries(tracks: list[dict[str, str]]) -> tuple[list[str], np.ndarray]:
    """The tags used as queries, and which tracks have each, bool [queries, tracks]."""
    tags_of_track = [
        {word.strip() for word in row["tags"].split(",")} | {row["genre"], row["vocal"]}
        for row in tracks
    ]
    names = sorted(set().union(*tags_of_track) - {""})
    has = np.array([[name in words for words in tags_of_track] for name in names])
    measured = (has.sum(axis=1) >= FEWEST) & ~has.all(axis=1)
    return [name for name, keep in zip(names, measured, strict=True) if keep], has[measured]


def embed(model: Model, tracks: list[dict[str, str]], data: Path, gain: float) -> np.ndarray:
    """Unit vectors [tracks, D], each the mean of its clips'."""
    rows = []
    for row in tracks:
        files = [data / "clips" / f"{row['track_id']}_{n}.ogg" for n in range(int(row["clips"]))]
        rate = model.spec.audio.sample_rate
        sounds = [(gain * decode(str(file), model.spec.audio).samples, rate) for file in files]
        rows.append(model.encode_audio(sounds).mean(axis=0))
    return unit(np.stack(rows))


if __name__ == "__main__":
    main()
