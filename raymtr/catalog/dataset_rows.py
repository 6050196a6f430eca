"""How a row of each published dataset becomes a track: its id, its file, and what is known of it.

Each function returns the id within the dataset, the audio's path below `audio/` without suffix, and
the columns of the track.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raymtr.catalog.dataset_cells import listed, text
from raymtr.track import PUBLISHED

Row = Mapping[str, Any]
Track = dict[str, Any]
BLACKLIST = {"music", "instrument"}  # tags of AudioSet that TTMR++ drops

FOLDS = {  # words of published splits
    **{"training": "train", "development": "train", "validation": "valid"},
    **{"test": "test", "evaluation": "test"},
}
# By the folder of a clip: twelve of sixteen are for training.
MAGNATAGATUNE_FOLDS = {
    f"{digit:x}/": "train" if digit < 12 else "valid" if digit == 12 else "test"
    for digit in range(16)
}
CLIP_INFO = frozenset(  # columns of MagnaTagATune's tables that are not tags
    (
        *("clip_id", "track_number", "title", "artist", "album", "url", "segmentStart"),
        *("segmentEnd", "original_url", "mp3_path"),
    )
)


def _metadata(row: Row) -> Track:
    return {
        "title": text(row["title"]),
        "artist": text(row["artist_name"]),
        "album": text(row["release"]),
    }


def _words(row: Row) -> Track:
    caption = text(row["pseudo_caption"])
    return {"tags": listed(row["tag_list"]), PUBLISHED: [caption] if caption else None}


def _flag(cell: object) -> bool:
    return str(cell).lower() == "true"


def msd(row: Row) -> tuple[str, str, Track]:
    """MSD, with the similar artists of OLGA."""
    similar = [name for name in (text(row.get("sim_artist_text")) or "").split("[SEP]") if name]
    track = {**_metadata(row), **_words(row), "similar_artists": similar or None}
    return str(row["track_id"]), str(row["path"] or ""), track


def audioset(row: Row) -> tuple[str, str, Track]:
    """AudioSet-music, without tags that say no more than "music"."""
    words = _words(row)
    kept = [tag for tag in words["tags"] or () if tag.lower() not in BLACKLIST]
    return str(row["track_id"]), str(row["path"] or ""), {**words, "tags": kept or None}


def music4all(row: Row) -> tuple[str, str, Track]:
    """Music4All."""
    return str(row["track_id"]), str(row["track_id"]), {**_metadata(row), **_words(row)}


def fma(row: Row) -> tuple[str, str, Track]:
    """FMA-large, with TTMR++'s words."""
    name = f"{int(row['track_id']):06d}"
    return name, f"{name[:3]}/{name}", _words(row)


def musiccaps(row: Row) -> tuple[str, str, Track]:
    """MusicCaps: people's captions."""
    caption = text(row["caption_ground_truth"])
    track = {"tags": listed(row["aspect_list"]), PUBLISHED: [caption] if caption else None}
    return str(row["ytid"]), str(row["fname"]), track


def musiccaps_public(row: Row) -> tuple[str, str, Track]:
    """MusicCaps as its authors published it; its balanced subset has 1,000 clips."""
    track = {
        "tags": listed(row["aspect_list"]),
        PUBLISHED: [str(row["caption"])],
        "balanced_subset": _flag(row["is_balanced_subset"]),
    }
    return str(row["ytid"]), str(row["ytid"]), track


def song_describer(row: Row) -> tuple[str, str, Track]:
    """Song Describer; a track has a row for each caption."""
    tags = [
        tag for name in ("genre", "instrument", "mood/theme") for tag in listed(row[name]) or ()
    ]
    path = str(row["path"]).removesuffix(".mp3") + ".2min"
    track = {
        "artist": f"jamendo artist {row['artist_id']}",
        "tags": tags or None,
        PUBLISHED: [str(row["caption"])],
        "valid_subset": _flag(row["is_valid_subset"]),
    }
    return str(row["track_id"]), path, track


def mtg_jamendo(row: Row) -> tuple[str, str, Track]:
    """MTG-Jamendo, its tags by kind too."""
    kinds: dict[str, list[str]] = {"genre": [], "instrument": [], "mood/theme": []}
    for tag in row["TAGS"]:
        kind, _, name = tag.partition("---")
        kinds.setdefault(kind, []).append(name)
    track: Track = {
        "title": text(row.get("TRACK_NAME")),
        "artist": text(row.get("ARTIST_NAME")) or row["ARTIST_ID"],
        "album": text(row.get("ALBUM_NAME")),
        "tags": [tag for tags in kinds.values() for tag in tags] or None,
        "genre": kinds["genre"] or None,
        "instrument": kinds["instrument"] or None,
        "mood": kinds["mood/theme"] or None,
        "fold": row["fold"],
    }
    return row["TRACK_ID"], row["PATH"].removesuffix(".mp3"), track


def magnatagatune(row: Row) -> tuple[str, str, Track]:
    """MagnaTagATune: a column for each tag."""
    tags = [name for name, cell in row.items() if name not in CLIP_INFO and str(cell) == "1"]
    track: Track = {name: text(row.get(name)) for name in ("title", "artist", "album")}
    path = str(row["mp3_path"])
    track |= {"tags": tags or None, "fold": MAGNATAGATUNE_FOLDS.get(path[:2])}
    return str(row["clip_id"]), path, track


def fma_small(row: Row) -> tuple[str, str, Track]:
    """FMA-small, for genres."""
    name = f"{int(row['track_id']):06d}"
    track = {
        "title": text(row.get("track.title")),
        "artist": text(row.get("artist.name")),
        "album": text(row.get("album.title")),
        "genre": text(row["track.genre_top"]),
        "fold": FOLDS.get(row["set.split"]),
    }
    return name, f"{name[:3]}/{name}", track


def nsynth(row: Row) -> tuple[str, str, Track]:
    """NSynth, for instruments."""
    track = {
        "instrument": row["instrument_family_str"],
        "recording": row["instrument_str"],  # notes of one instrument are of one split
        "pitch": row["pitch"],
        "fold": row["fold"],
    }
    return row["note_str"], f"{row['folder']}/{row['note_str']}", track


def emomusic(row: Row) -> tuple[str, str, Track]:
    """EmoMusic: arousal and valence, 1 to 9."""
    track = {
        "title": text(row.get("Song title")),
        "artist": text(row.get("Artist")),
        "genre": text(row.get("Genre")),
        "arousal": float(row["mean_arousal"]),
        "valence": float(row["mean_valence"]),
        "fold": FOLDS.get(row.get("Mediaeval 2013 set", "")),
    }
    return str(row["song_id"]), str(row["song_id"]), track
