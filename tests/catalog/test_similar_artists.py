"""The artist graph: matching names, order, both directions, and the real Last.fm graph."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from raymtr.catalog.similar_artists import MOST, TAKE_ROWS, join_similar_artists, read_graph
from raymtr.catalog.sources import mtg_jamendo_tracks
from raymtr.errors import InputError
from raymtr.track import check_tracks


def tracks(*artists, **columns):
    ids = [f"t{i:03}" for i in range(len(artists))]
    return check_tracks(pa.table({"track_id": ids, "artist": list(artists), **columns}))


def write(folder, text, name="graph.tsv"):
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def joined(table, graph):
    table, matched = join_similar_artists(table, read_graph(graph))
    return table["similar_artists"].to_pylist(), matched


def test_names_meet_by_key_and_keep_the_graphs_spelling(tmp_path):
    graph = write(
        tmp_path,
        "artist\tsimilar_artist\tscore\nBeyonce\tRihanna\t0.5\nbeyoncé\tThe Roots\t0.9\n"
        'Nobody\tBeyonce\t0.7\nRihanna\tRIHANNA\t1.0\n"""Weird Al"" Yankovic"\tNobody\t0.1\n',
    )
    lists, matched = joined(tracks("Beyoncé", "roots", None, "Stranger"), graph)
    assert lists == [["The Roots", "Nobody", "Rihanna"], ["Beyonce"], None, None]
    assert (matched.artists, matched.found) == (3, 2)
    assert joined(tracks('"weird al" yankovic'), graph)[0] == [["Nobody"]]


def test_a_pair_counts_both_ways_once_with_its_best_score(tmp_path):
    graph = write(
        tmp_path,
        "artist,similar_artist,cosine\nA,B,0.2\nB,A,0.6\nA,C,0.5\nD,A,0.1\n",
        "graph.csv",
    )
    lists, _ = joined(tracks("A", "D"), graph)
    assert lists == [["B", "C", "D"], ["A"]]


def test_without_scores_the_own_list_comes_first_in_its_order(tmp_path):
    graph = write(tmp_path, "artist\tsimilar_artist\nZ\tA\nA\tQ\nA\tB\nY\tA\n")
    assert joined(tracks("A"), graph)[0] == [["Q", "B", "Z", "Y"]]


def test_at_most_fifty_and_the_best_of_them(tmp_path):
    rows = "".join(f"Star\tFan {i}\t{i / 100}\n" for i in range(80))
    graph = write(tmp_path, "artist\tsimilar_artist\tscore\n" + rows)
    lists, _ = joined(tracks("Star"), graph)
    assert lists == [[f"Fan {i}" for i in range(79, 79 - MOST, -1)]]


def test_artists_the_graph_does_not_know_keep_what_they_had(tmp_path):
    graph = write(tmp_path, "artist\tsimilar_artist\nA\tB\n")
    table = tracks("A", "Own", similar_artists=[["old"], ["kept"]])
    lists, matched = joined(table, graph)
    assert lists == [["B"], ["kept"]]
    assert (matched.artists, matched.found) == (2, 1)


def test_an_edge_without_score_comes_last_and_one_without_name_is_dropped(tmp_path):
    graph = write(tmp_path, "artist\tsimilar_artist\tscore\nA\tX\t\nA\tY\t0.1\nA\t\t0.9\n")
    assert joined(tracks("A"), graph)[0] == [["Y", "X"]]


def test_many_tracks_agree_with_a_plain_loop(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"n{i}" for i in range(60)]
    edges = {tuple(rng.choice(60, 2, replace=False)): float(rng.random()) for _ in range(300)}
    columns = {
        "artist": [names[a] for a, _ in edges],
        "similar_artist": [names[b] for _, b in edges],
        "weight": list(edges.values()),
    }
    pq.write_table(pa.table(columns), tmp_path / "graph.parquet")
    lists, _ = joined(tracks(*names), str(tmp_path / "graph.parquet"))
    best: dict[int, dict[int, float]] = {i: {} for i in range(60)}
    for (a, b), score in edges.items():
        best[a][b] = max(score, best[a].get(b, 0))
        best[b][a] = max(score, best[b].get(a, 0))
    wanted = [
        [names[j] for j in sorted(best[i], key=lambda j: -best[i][j])][:MOST] for i in range(60)
    ]
    assert [found or [] for found in lists] == wanted


def test_every_track_of_an_artist_inherits_the_list(tmp_path):
    """More tracks than are given their lists at once, the artist spelled in two ways."""
    graph = write(tmp_path, "artist\tsimilar_artist\tscore\nA\tB\t0.9\nA\tC\t0.8\n")
    count = TAKE_ROWS + 3
    table = check_tracks(
        pa.table(
            {
                "track_id": [f"t{i:06}" for i in range(count)],
                "artist": ["a", "The A", None] * (count // 3) + ["B"] * (count % 3),
            }
        )
    )
    joined_table, matched = join_similar_artists(table, read_graph(graph))
    found = pc.value_counts(pc.binary_join(joined_table["similar_artists"], "|")).to_pylist()
    counts = {row["values"]: row["counts"] for row in found}
    assert counts == {"B|C": count // 3 * 2, None: count // 3, "A": count % 3}
    assert (matched.artists, matched.found) == (2, 2)


def test_a_graph_in_many_pieces_is_one_graph():
    """Names are numbered alike across the pieces that a large file comes in."""
    pieces = [("A", "B", 0.1), ("B", "C", 0.2), ("C", "A", 0.3)]
    names = {
        name: pa.chunked_array([[piece[i]] for piece in pieces])
        for i, name in enumerate(("artist", "similar_artist", "score"))
    }
    table, _ = join_similar_artists(tracks("A", "B", "C"), pa.table(names))
    assert table["similar_artists"].to_pylist() == [["C", "B"], ["C", "A"], ["A", "B"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\tb\nx\ty\n", "no column artist and no similar_artist.*columns seen: a, b"),
        ("artist\tsimilar_artist\tscore\na\tb\thigh\n", r"'score', row 1 \(line 2\): 'high'"),
        ("artist\tsimilar_artist\n", "has no edges"),
    ],
)
def test_a_graph_that_is_none_is_rejected(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        read_graph(write(tmp_path, text))


def test_the_lastfm_graph_meets_jamendo_in_one_artist(large_data):
    graph = read_graph(str(large_data / "data" / "artists" / "artist_similarity.tsv"))
    assert len(graph) == 18_508
    table, matched = join_similar_artists(
        mtg_jamendo_tracks(str(large_data / "data" / "mtg-jamendo")), graph
    )
    assert matched.found == 1
    known = table.filter(table["similar_artists"].is_valid())
    assert set(known["artist"].to_pylist()) == {"Cartel"}
    assert known["similar_artists"][0].as_py()[:2] == ["Taking Back Sunday", "Brand New"]


def test_the_lastfm_graph_forgives_spellings(large_data):
    graph = read_graph(str(large_data / "data" / "artists" / "artist_similarity.tsv"))
    lists, matched = join_similar_artists(
        tracks("BEYONCE", "beatles", "Sigur Ros", "nobody"), graph
    )
    assert matched.found == 3
    assert all(lists["similar_artists"].to_pylist()[:3])
