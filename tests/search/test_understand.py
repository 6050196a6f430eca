from __future__ import annotations

from collections.abc import Callable

import pytest
from builders import publish_catalog

from raymtr.errors import InputError
from raymtr.index.track_table import TrackTable
from raymtr.search.understand import similar_artist, understand

TRACKS = [
    ("superstition", "Superstition", "Stevie Wonder"),
    ("sirduke", "Sir Duke", "Stevie Wonder"),
    ("halo", "Halo", "Beyoncé"),
    ("halo2", "Halo", "Depeche Mode"),
    ("stand", "Stand by Me", "Ben E. King"),
    ("roll", "Like a Rolling Stone", "Bob Dylan"),
    ("gen", "My Generation", "The Who"),
    ("sun", "Sun", "Aurora"),
    ("thesun", "The Sun", "Parov Stelar"),
    ("nowoman", "No Woman, No Cry", "Bob Marley"),
    ("piano", "Piano", "Keys"),
    ("from", "Letters from Home", "Pat Metheny"),
    ("self", "Metallica", "Metallica"),
    ("punct", "???", "!!!"),
    ("jp", "丸の内サディスティック", "椎名林檎"),
    ("vs", "Duel", "Artist vs Poet"),
    ("by", "Nothing", "Songs by Nobody"),
    ("dash", "Etude", "Black - White"),
    ("namesake", "Parov Stelar", "Keys"),
    ("hostile", "a' or 1=1 --", "Bobby Tables"),
]
TAGS = ["piano", "jazz", "vocals", "calm", "drums", "guitar"]


@pytest.fixture(scope="module")
def table(make_workspace: Callable) -> TrackTable:
    rows = [
        {"track_id": i, "title": t, "artist": a, "tags": TAGS, "similar_artists": ["Ray Charles"]}
        for i, t, a in TRACKS
    ]
    workspace = make_workspace(rows)
    return TrackTable(workspace.db, publish_catalog(workspace))


@pytest.mark.parametrize(
    ("text", "kind", "tracks"),
    [
        ("Superstition", "title", "superstition"),
        ("superstition", "title", "superstition"),
        ('play "Sir Duke"', "title", "sirduke"),
        ("please play me Sir Duke", "title", "sirduke"),
        ("Halo", "title", "halo halo2"),
        ("Halo by beyonce", "title", "halo"),
        ("halo - depeche mode", "title", "halo2"),
        ("Depeche Mode – Halo", "title", "halo2"),
        ("Stand by Me", "title", "stand"),
        ("stand by me by ben e king", "title", "stand"),
        ("music track Halo by Beyoncé from I Am", "title", "halo"),
        ("Letters from Home by Pat Metheny from Letters from Home", "title", "from"),
        ("the song called Halo", "title", "halo halo2"),
        ("Like a Rolling Stone", "title", "roll"),
        ("Sun", "title", "sun"),
        ("the sun", "title", "thesun"),
        ("No Woman No Cry", "title", "nowoman"),
        ("Metallica", "title", "self"),
        ("???", "title", "punct"),
        ("丸の内サディスティック", "title", "jp"),
        ("a' or 1=1 --", "title", "hostile"),
        ("stevie wonder", "artist", "superstition sirduke"),
        ("songs by Stevie Wonder", "artist", "superstition sirduke"),
        ("music by Stevie Wonder", "artist", "superstition sirduke"),
        ("Stevie Wonder songs", "artist", "superstition sirduke"),
        ("something by beyonce", "artist", "halo"),
        ("the who", "artist", "gen"),
        ("who", "artist", "gen"),
        ("!!!", "artist", "punct"),
        ("椎名林檎", "artist", "jp"),
        ("calm songs by Stevie Wonder", "artist", "superstition sirduke"),
        ("similar to Stevie Wonder", "similar", "superstition sirduke"),
        ("songs similar to stevie wonder", "similar", "superstition sirduke"),
        ("similar with artist Stevie Wonder", "similar", "superstition sirduke"),
        ("like Stevie Wonder but calmer", "similar", "superstition sirduke"),
        ("sounds like Beyonce, but with guitar", "similar", "halo"),
        ("something like Superstition", "similar", "superstition"),
        ("similar music track with Halo by Beyoncé from I Am", "similar", "halo"),
        ("music like Ray Charles", "similar", ""),  # known to the artist graph alone
        ("stevy wonder", "artist", "superstition sirduke"),
        ("superstitoin", "title", "superstition"),
        ("halo by beyonse", "title", "halo"),
        ("songs by steve wonder", "artist", "superstition sirduke"),
        ("similar to stevie wander", "similar", "superstition sirduke"),
        ("rainy day piano", "description", ""),
        ("a calm song with jazz guitar by the sea", "description", ""),
        ("music like jazz", "description", ""),
        ("similar to nobody we know", "description", ""),
        ("Piano", "description", "piano"),  # a tag of the catalog first
        ("jazz drums", "description", ""),
        ("by", "description", ""),
        ("similar to", "description", ""),
        ("like", "description", ""),
        ("- - by by - from", "description", ""),
    ],
)
def test_a_query_is_understood(table: TrackTable, text: str, kind: str, tracks: str) -> None:
    understood = understand(text, table)
    assert understood.kind == kind
    assert sorted(understood.tracks) == sorted(tracks.split())


@pytest.mark.parametrize(
    ("text", "rest", "exclude"),
    [
        ("like Stevie Wonder but calmer", "calmer", ()),
        ("calm songs by Stevie Wonder", "calm songs", ()),
        ("rainy piano, no vocals", "rainy piano", ("vocals",)),
        ("calm piano without drums and no vocals", "calm piano", ("drums", "vocals")),
        ("piano without any drums, slow", "piano, slow", ("drums",)),
        ("a song with no chorus", "", ("chorus",)),  # no tag of the catalog
        ("no. 5 for piano", "no. 5 for piano", ()),
        ("novocals", "novocals", ()),
    ],
)
def test_what_is_left_of_the_words(
    table: TrackTable, text: str, rest: str, exclude: tuple[str, ...]
) -> None:
    understood = understand(text, table)
    assert (understood.text, understood.exclude) == (rest, exclude)


def test_names_stand_as_the_catalog_spells_them(table: TrackTable) -> None:
    understood = understand("HALO by beyonse", table)
    assert (understood.title, understood.artist) == ("Halo", "Beyoncé")
    understood = understand("like ray charles", table)
    assert (understood.kind, understood.artist) == ("similar", "ray charles")


@pytest.mark.parametrize(
    ("name", "track"),
    [
        ("Artist vs Poet", "vs"),
        ("Songs by Nobody", "by"),
        ("Black - White", "dash"),
        ("parov stelar", "thesun"),  # also a title of another's
        ("Metallica", "self"),
        ("!!!", "punct"),
    ],
)
def test_a_named_artist_is_that_artist_whatever_the_name_reads_like(
    table: TrackTable, name: str, track: str
) -> None:
    understood = similar_artist(name, table)
    assert (understood.kind, understood.tracks, understood.title) == ("similar", (track,), None)
    assert understood.text == ""


def test_an_artist_whom_only_the_graph_knows_is_known(table: TrackTable) -> None:
    assert similar_artist("Ray Charles", table).tracks == ()
    with pytest.raises(InputError, match="no artist 'Nobody'"):
        similar_artist("Nobody", table)
