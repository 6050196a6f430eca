"""Training sentences: track -> the sentence a text tower reads.

The sentences are TTMR++'s (Doh et al., ICASSP 2024): one string per text type of a track, a random
number of them in random order, joined with ". ". Half of the metadata draws use the paper's form.
The others use the ways in which people write titles and names, because queries look like that. No
global random state is used: the caller passes the rng, so a training step can be repeated exactly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raymtr.specs import TEXT_TYPES

MOST_SIMILAR_ARTISTS = 5  # names in one similarity sentence; the paper draws one to five
PAPERS_FORM = 0.5  # share of metadata sentences in the paper's form
METADATA_VARIANTS = (
    "{title} by {artist}",
    "{artist} - {title}",
    "the song {title}",
    "the song {title} by {artist}",
    "{title} from the album {album}",
    "{title} by {artist}, from the album {album}",
    "a track by {artist}",
    "a track by {artist} from {album}",
    "music by {artist}",
)


def metadata_sentence(title: str | None, artist: str | None, album: str | None) -> str:
    """`music track {title} by {artist} from {album}`, without absent parts."""
    parts = ["music track"]
    for word, value in (("", title), ("by ", artist), ("from ", album)):
        if value:
            parts.append(f"{word}{value}")
    return " ".join(parts)


def draw_metadata_sentence(
    title: str | None, artist: str | None, album: str | None, rng: np.random.Generator
) -> str:
    """`metadata_sentence` of all three, or a variant that needs no absent part.

    At least one of `title` and `artist` must be present.
    """
    parts = {"title": title, "artist": artist, "album": album}
    if rng.random() < PAPERS_FORM:
        return metadata_sentence(**parts)
    usable = [form for form in METADATA_VARIANTS if all(map(parts.get, _slots(form)))]
    return usable[int(rng.integers(len(usable)))].format(**parts)


def _slots(form: str) -> list[str]:
    return re.findall(r"{(\w+)}", form)


def similar_artists_sentence(artists: Sequence[str]) -> str:
    """`similar with artist {A, B}`."""
    return "similar with artist " + ", ".join(artists)


def tags_sentence(tags: Sequence[str]) -> str:
    """Tags joined with commas."""
    return ", ".join(tags)


def draw_sentence(
    track: Mapping[str, Any],
    captions: Sequence[str],
    rng: np.random.Generator,
    weights: Mapping[str, float] | None = None,
) -> str | None:
    """One random sentence about `track`, or None for a track without text.

    Tags are a random non-empty subset, captions one at random, similar artists one to five at
    random, metadata in one of its forms, playlists one title. Then a random number of the types is
    joined in random order (Doh et al. 2024). With `weights` by type the sentence is one type of
    those that the track has, drawn by weight, as MuLan mixes short texts, long texts, playlist
    titles and labels (Huang et al. 2022); None if the track has no type with a weight above 0.
    """
    parts = _parts(track, captions, rng)
    if weights:
        parts = {name: part for name, part in parts.items() if weights.get(name, 0) > 0}
    if not parts:
        return None
    sentences = list(parts.values())
    if weights:
        shares = np.array([weights[name] for name in parts])
        return sentences[int(rng.choice(len(shares), p=shares / shares.sum()))]
    order = rng.permutation(len(sentences))[: rng.integers(1, len(sentences) + 1)]
    return ". ".join(sentences[i] for i in order)


def _parts(
    track: Mapping[str, Any], captions: Sequence[str], rng: np.random.Generator
) -> dict[str, str]:
    """A sentence of each of TEXT_TYPES that `track` has."""
    parts: dict[str, str] = {}
    tags = list(track.get("tags") or ())
    if tags:
        chosen = rng.permutation(len(tags))[: rng.integers(1, len(tags) + 1)]
        parts["tags"] = tags_sentence([tags[i] for i in chosen])
    if captions:
        parts["caption"] = captions[int(rng.integers(len(captions)))]
    if track.get("title") or track.get("artist"):
        named = (track.get("title"), track.get("artist"), track.get("album"))
        parts["metadata"] = draw_metadata_sentence(*named, rng)
    similar = list(track.get("similar_artists") or ())
    if similar:
        count = rng.integers(1, min(MOST_SIMILAR_ARTISTS, len(similar)) + 1)
        chosen = rng.permutation(len(similar))[:count]
        parts["similar_artists"] = similar_artists_sentence([similar[i] for i in chosen])
    playlists = list(track.get("playlists") or ())
    if playlists:
        parts["playlist"] = playlists[int(rng.integers(len(playlists)))]
    assert set(parts) <= set(TEXT_TYPES)
    return parts
