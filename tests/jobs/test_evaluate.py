"""`raymtr evaluate` over real tables whose truth is known, without audio.

A track's vector is the text tower's own vector of its title sentence. So the towers must find
every title first, and the figures of the other kinds are whatever a random joint space gives.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs import evaluate as job
from jobs.evaluate import describe
from jobs.evaluate_tracks import evaluate_tracks, pool_filter
from raymtr import storage
from raymtr.captions.captioner import adapter_identity
from raymtr.captions.writing.realised_rows import caption_tracks
from raymtr.embeddings.store import EMBEDDED_SCHEMA, EmbeddingStore, ModelRef
from raymtr.errors import InputError
from raymtr.evaluation.catalog_benchmark import catalog_benchmark
from raymtr.index.build_tables import tracks_table
from raymtr.index.publish import publish
from raymtr.model.model_folder import save_towers
from raymtr.model.pretrained import load_model
from raymtr.model.two_towers import build_towers
from raymtr.recipes import tiny
from raymtr.specs import SearchSpec
from raymtr.text import metadata_sentence
from raymtr.track import check_tracks
from raymtr.trained_on import RECORD, pair_names, record_of, to_bytes, track_names
from raymtr.workspace import Workspace

SETTINGS = tiny()
HELD_OUT = 12
UNHEARD = "t05"  # a track of the pool that has no vector
WORDS = ("Amber", "Lantern", "Harbour", "Velvet", "Copper", "Thistle", "Marble", "Ember")


def catalog():
    """Twelve held-out songs by four artists, four train artists each similar to one of them."""
    rows = []
    for n in range(16):
        artist = f"Artist {'ABCDEFGH'[n % 4 + 4 * (n >= HELD_OUT)]}"
        rows.append(
            {
                "track_id": f"t{n:02d}",
                "uri": f"/nowhere/{n}.flac",
                "title": f"{WORDS[n // 2]} {WORDS[(n * 3 + 1) % 8]} {'Rise' if n % 2 else 'Fall'}",
                "artist": artist,
                "tags": [["piano", "calm"], ["guitar", "fast"], ["violin", "sad"]][n % 3],
                "similar_artists": [f"Artist {'EFGH'[n % 4]}"] if n < HELD_OUT else None,
                "split": "test" if n < HELD_OUT else "train",
            }
        )
    return check_tracks(pa.Table.from_pylist(rows))


def embedded(table, model):
    """EMBEDDED rows: one window a track, the vector of its title's sentence."""
    rows = table.to_pylist()
    vectors = model.encode_text([metadata_sentence(row["title"], None, None) for row in rows])
    return pa.Table.from_pylist(
        [
            {
                "track_id": row["track_id"],
                "uri": row["uri"],
                "starts_s": [0.0],
                "ends_s": [10.0],
                "vector": vector.tolist(),
                "windows": vector.tolist(),
                "code": None,
                "reason": None,
            }
            for row, vector in zip(rows, vectors, strict=True)
            if row["track_id"] != UNHEARD
        ],
        schema=EMBEDDED_SCHEMA,
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    here = Workspace.open(str(tmp_path_factory.mktemp("evaluated")), create=True)
    table = catalog()
    storage.write_table(f"{here.tracks}/part.parquet", table)
    scratch = str(tmp_path_factory.mktemp("model") / "model")
    save_towers(build_towers(SETTINGS.towers, seed=0), scratch)
    model = load_model(scratch)
    folder = here.embeddings(model.fingerprint)
    model.save(f"{folder}/model")
    made_by = ModelRef(fingerprint=model.fingerprint, precision="fp32", dim=model.spec.dim)
    shards = EmbeddingStore(folder, made_by)
    shards.take()
    shards.commit(embedded(table, model))
    shards.release()
    publish(here, [tracks_table(table, None)], shards, search=SearchSpec())
    return here


@pytest.fixture(scope="module")
def answer(workspace):
    return evaluate_tracks(workspace, SETTINGS)


@pytest.mark.slow
def test_the_towers_find_what_their_vectors_say(answer):
    titles = answer["towers"]["title"]
    # Odd titles are asked as `T by A`, which is another sentence; even ones are the vector itself.
    assert titles["queries"] == HELD_OUT and titles["r_at_1"] >= 0.5
    assert titles["median_rank"] <= 2
    assert answer["notes"][-1] == "1 tracks of the pool have no vector: towers cannot find them"


def test_search_knows_names_that_no_tower_knows(answer):
    assert answer["search"]["title"]["r_at_1"] == 1.0
    assert answer["search"]["artist"]["r_at_1"] == 1.0
    assert answer["search"]["artist"]["ndcg_at_10"] > answer["towers"]["artist"]["ndcg_at_10"]


def test_the_answer_has_the_shape_scripts_rely_on(answer):
    kinds = {"caption", "tag", "title", "artist", "similar_artist"}
    names = {"queries", "r_at_1", "r_at_5", "r_at_10", "median_rank", "ndcg_at_10"}
    assert answer["pool"] == HELD_OUT and answer["seed"] == 0
    for column in ("chance", "towers", "search"):
        assert set(answer[column]) == kinds
        assert all(names <= set(figures) for figures in answer[column].values())
    assert answer["chance"]["title"]["r_at_1"] == pytest.approx(1 / HELD_OUT)
    low, high = answer["intervals"]["towers"]["title"]["r_at_1"]
    assert low <= answer["towers"]["title"]["r_at_1"] <= high
    json.dumps(answer, allow_nan=False)


def fields_of(path):
    return [line.split() for line in Path(path).read_text().splitlines()]


def test_the_files_let_others_recompute_the_figures(answer):
    """R@1 of the run file against the qrels, by its score column as trec_eval sorts."""
    right = fields_of(answer["files"]["qrels"])
    wanted = {(query, track) for query, _, track, grade in right if int(grade) > 0}
    for system in ("towers", "search"):
        best: dict[str, tuple[float, str]] = {}
        for query, _, track, _, score, _ in fields_of(answer["files"][f"run_{system}"]):
            best[query] = max(best.get(query, (0.0, "")), (float(score), track))
        titles = [query for query, _ in wanted if query.startswith("title")]
        found = [(query, best[query][1]) in wanted for query in titles]
        assert np.mean(found) == pytest.approx(answer[system]["title"]["r_at_1"])
    assert storage.read_json(answer["files"]["metrics"])["towers"] == answer["towers"]


@pytest.mark.slow
def test_what_was_written_can_be_evaluated_again(workspace, answer, tmp_path):
    again = evaluate_tracks(
        workspace,
        SETTINGS,
        benchmark=workspace.path("evaluation"),
        system="towers",
        out=str(tmp_path),
    )
    assert again["towers"] == answer["towers"] and "search" not in again
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "metrics.json",
        "pool.txt",
        "qrels.txt",
        "queries.jsonl",
        "run.towers.txt",
    ]


def test_a_benchmark_of_ones_own_over_the_whole_catalog(workspace, tmp_path):
    (tmp_path / "queries.jsonl").write_text('{"query_id": "mine", "text": "Artist E"}\n')
    (tmp_path / "qrels.txt").write_text("mine 0 t12 2\n")
    own = evaluate_tracks(
        workspace, SETTINGS, benchmark=str(tmp_path), system="search", out=str(tmp_path / "out")
    )
    assert own["pool"] == 16 and own["search"]["query"]["r_at_1"] == 1.0


def test_the_pool_is_searched_alone(workspace):
    table = storage.read_tables(workspace.tracks)
    benchmark = catalog_benchmark(table, seed=0)
    assert pool_filter(benchmark.pool, table) == "split = 'test'"
    assert pool_filter(benchmark.pool[1:], table) is None
    assert pool_filter(table["track_id"].to_pylist(), table) is None


def test_the_table_names_every_kind_and_system(answer):
    shown = describe(answer).splitlines()
    assert shown[0].startswith("12 tracks in the pool (split test)")
    assert [line.split()[0] for line in shown[3:18:3]] == list(answer["chance"])
    assert [line.split()[0] for line in shown[4:6]] == ["search", "chance"]
    assert "note: 1 tracks of the pool have no vector" in describe(answer)
    assert len({len(line) for line in shown[3:18]}) == 1  # columns stand under one another


@pytest.fixture
def learnt(workspace):
    """A function: keeps with the live model that it was trained on these names."""
    folder = workspace.embeddings(storage.list_folders(workspace.path("embeddings"))[0])
    yield lambda names: storage.write_bytes(f"{folder}/model/{RECORD}", to_bytes(record_of(names)))
    storage.delete(f"{folder}/model/{RECORD}")


@pytest.mark.slow
def test_figures_over_what_a_model_was_trained_on_say_so(workspace, learnt, tmp_path):
    learnt(name for n in (*range(6), 14) for name in track_names(f"t{n:02d}", None))
    found = evaluate_tracks(workspace, SETTINGS, system="towers", out=str(tmp_path))
    assert found["trained_on"]["pool"] == 6
    assert found["trained_on"]["queries"]["title"] == 6
    assert storage.read_json(found["files"]["metrics"])["trained_on"] == found["trained_on"]
    shown = describe(found)
    assert "this model was trained on 6 of 12 tracks of the pool" in shown
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("title")] == ["12*"]


@pytest.mark.slow
def test_a_pool_that_a_model_never_heard_bears_no_mark(workspace, learnt, tmp_path):
    learnt(track_names("t14", "of a sound"))
    found = evaluate_tracks(workspace, SETTINGS, system="towers", out=str(tmp_path))
    assert found["trained_on"]["pool"] == 0 and not any(found["trained_on"]["queries"].values())
    assert "this model was trained on none of the 12 tracks of the pool" in describe(found)
    assert "*" not in describe(found)


def test_a_model_without_a_record_is_not_said_to_be_clean(answer):
    assert answer["trained_on"]["pool"] is None
    assert "no record of what it was trained on" in describe(answer)


@pytest.mark.slow
def test_the_command_line_reaches_the_job(workspace, tmp_path):
    parser = argparse.ArgumentParser()
    job.add_arguments(parser)
    arguments = parser.parse_args(["--system", "towers", "--out", str(tmp_path)])
    assert "title" in job.run(arguments, workspace, SETTINGS)["towers"]
    with pytest.raises(SystemExit):
        parser.parse_args(["--system", "everything"])


def test_wrong_use_is_said(workspace, tmp_path):
    with pytest.raises(
        InputError, match="no tracks in split 'valid'; seen: 12 in test, 4 in train"
    ):
        evaluate_tracks(workspace, SETTINGS, split="valid")
    with pytest.raises(InputError, match="system is one of"):
        evaluate_tracks(workspace, SETTINGS, system="ears")
    with pytest.raises(InputError, match="run `raymtr scan`"):
        evaluate_tracks(Workspace.open(str(tmp_path), create=True), SETTINGS)


@pytest.mark.slow
def test_a_catalog_of_words_can_measure_its_search(tmp_path):
    here = Workspace.open(str(tmp_path), create=True)
    table = catalog()
    table = table.set_column(1, table.schema.field("uri"), pa.nulls(len(table), pa.string()))
    storage.write_table(f"{here.tracks}/part.parquet", table)
    publish(here, [tracks_table(table, None)], None, search=SearchSpec())
    assert evaluate_tracks(here, SETTINGS, system="search")["search"]["title"]["r_at_1"] == 1.0
    with pytest.raises(InputError, match="words alone"):
        evaluate_tracks(here, SETTINGS, system="towers")


def captioned(folder):
    """A workspace whose catalog is captioned, and the pairs its captioner held out."""
    here = Workspace.open(str(folder), create=True)
    sounds = [f"sound{n} piano" for n in range(12)]
    tags = [[sound, "calm"] for sound in sounds]
    ids = [f"t{n:02d}" for n in range(12)]
    table = check_tracks(pa.table({"track_id": ids, "tags": tags}))
    storage.write_table(f"{here.tracks}/part.parquet", table)
    captions = caption_tracks(table, per_track=2, seed=0)
    storage.write_table(f"{here.captions}/part-00000.parquet", captions)
    lines = [
        json.dumps({"track_id": ids[n], "tags": tags[n], "caption": f"A calm song of {sounds[n]}."})
        for n in range(12)
    ]
    storage.write_bytes(f"{here.captioner}/held_out.jsonl", "\n".join(lines).encode())
    return here


def ask(here, *argv):
    parser = argparse.ArgumentParser()
    job.add_arguments(parser)
    return job.run(parser.parse_args(argv), here, SETTINGS)


@pytest.mark.slow
def test_captions_are_scored_beside_templates_and_tags(tmp_path):
    here = captioned(tmp_path)
    answer = ask(here, "captions")
    assert list(answer["systems"]) == ["captions", "realiser", "template", "tags"]
    assert answer["systems"]["captions"]["captions"] == 24 and answer["pairs"] == 12
    assert answer["systems"]["captions"]["coverage"]["mean"] == 1.0
    assert storage.read_json(answer["files"]["json"])["systems"] == answer["systems"]
    first = json.loads(storage.read_bytes(answer["files"]["jsonl"]).splitlines()[0])
    assert first["tags"] == ["sound0 piano", "calm"] and len(first["captions"]["captions"]) == 2
    assert answer["systems"]["captions"]["non_words"]["mean"] == 0.0
    assert "paired difference to template" in describe(answer) and "layer 6" in describe(answer)


@pytest.mark.slow
def test_captions_are_read_blind_and_the_scores_come_back(tmp_path):
    here = captioned(tmp_path)
    answer = ask(here, "captions", "--blind", "5")
    page = storage.read_bytes(answer["files"]["blind"]).decode()
    key = storage.read_json(here.path("evaluation", "captions-blind-key.json"))
    assert len(key) == 25 == page.count("<fieldset ")  # five systems, people among them
    assert not any(f">{row['system']}<" in page for row in key)
    marks = [f"{row['item']},{5 if row['system'] == 'people' else 3},4" for row in key]
    scores = tmp_path / "scores.csv"
    scores.write_text("\n".join(["item,fluency,faithfulness", *marks]))
    read = ask(here, "captions", "--scores", str(scores))
    assert read["read"]["people"] == {
        "read": 5, "fluency": 5.0, "faithfulness": 4.0, "both_good": 1.0
    }  # fmt: skip
    assert read["read"]["template"]["both_good"] == 0.0 and "people" in describe(read)
    scores.write_text("item,fluency,faithfulness\nt999,5,5\n")
    with pytest.raises(InputError, match="line 2 of the scores"):
        ask(here, "captions", "--scores", str(scores))
    with pytest.raises(InputError, match="--blind takes 1 to 12, the number of pairs"):
        ask(here, "captions", "--blind", "13")


@pytest.mark.slow
def test_systems_can_be_named(tmp_path):
    here = captioned(tmp_path)
    held_out = f"{here.captioner}/held_out.jsonl"
    named = ask(
        here, "captions", "--pairs", held_out, "--captions", f"people={held_out}",
        "--baseline", "people", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert named["systems"]["people"]["bert_f1"]["mean"] == pytest.approx(1.0)
    assert named["differences"]["template"]["bert_f1"]["high"] < 0
    assert (tmp_path / "out" / "captions.json").exists()


@pytest.mark.slow
def test_captions_over_pairs_that_their_captioner_learnt_from_say_so(tmp_path):
    here = captioned(tmp_path)
    held_out = f"{here.captioner}/held_out.jsonl"
    rows = [json.loads(line) for line in storage.read_bytes(held_out).splitlines()]
    storage.write_bytes(f"{here.captioner}/adapter_model.safetensors", b"an adapter")
    own = adapter_identity(here.captioner)
    names = [pair_names(r["track_id"], r["tags"], r["caption"]) for r in rows[:5]]
    record = record_of(name for known in names for name in known)
    storage.write_bytes(f"{here.captioner}/{RECORD}", to_bytes(record))
    files = []
    for name, adapter in (("own", own), ("other", "0" * 16)):
        said = [
            r | {"provenance": json.dumps({"source": "model", "adapter": adapter})} for r in rows
        ]
        storage.write_bytes(f"{tmp_path}/{name}.jsonl", "\n".join(map(json.dumps, said)).encode())
        files += ["--captions", f"{name}={tmp_path}/{name}.jsonl"]
    answer = ask(here, "captions", *files)
    assert answer["trained_on"] == {"own": 5, "other": None}
    shown = describe(answer)
    assert "own: its captioner was trained on 5 of these 12 pairs" in shown
    assert "own *" in shown and "other *" not in shown
    assert "other: the writer of these captions" in shown
    by_template = ask(here, "captions")
    assert by_template["trained_on"] == {"captions": 0} and not by_template["notes"]


def test_wrong_use_with_captions_is_said(workspace, tmp_path):
    with pytest.raises(InputError, match="`raymtr finetune` writes; or give --pairs"):
        ask(workspace, "captions")
    with pytest.raises(InputError, match="NAME=FILE"):
        ask(workspace, "captions", "--captions", "lora.jsonl")
    with pytest.raises(InputError, match="the name 'template' is taken"):
        ask(workspace, "captions", "--captions", "template=lora.jsonl")
    with pytest.raises(InputError, match="--held-out belongs to `raymtr evaluate captions`"):
        ask(workspace, "--held-out")
    with pytest.raises(SystemExit):
        ask(workspace, "melodies")


def protocol(workspace, *arguments):
    """The answer of `raymtr evaluate`, as the command line gives it."""
    parser = argparse.ArgumentParser()
    job.add_arguments(parser)
    return job.run(parser.parse_args(arguments), workspace, SETTINGS)


@pytest.fixture
def published(workspace):
    """The workspace with captions that came with its dataset."""
    before = storage.read_tables(workspace.tracks)
    said = pa.array([[f"Song number {n}."] for n in range(len(before))])
    path = f"{workspace.tracks}/part.parquet"
    storage.write_table(path, before.append_column("published_captions", said))
    yield workspace
    storage.write_table(path, before)


def test_caption_retrieval_prints_both_directions_and_the_pool(published):
    answer = protocol(published, "caption-retrieval")
    pool = HELD_OUT - 1  # one of them has no vector
    assert answer["pools"] == {"text_to_audio": pool, "audio_to_text": pool}
    assert answer["queries"]["text_to_audio"] == pool
    for name in ("r_at_1", "r_at_5", "r_at_10", "median_rank", "mrr", "map_at_10"):
        assert {f"text_to_audio_{name}", f"audio_to_text_{name}"} <= set(answer["figures"])
    told = describe(answer)
    assert f"text_to_audio: {pool} queries over a pool of {pool}" in told
    run = storage.read_bytes(answer["files"]["run_text_to_audio"]).decode().splitlines()
    assert len(run) == pool * pool
    files = answer["files"]
    compared = protocol(
        published,
        *("compare", "--qrels", files["qrels_text_to_audio"]),
        *("--runs", files["run_text_to_audio"], files["run_text_to_audio"]),
    )
    assert compared["queries"] == pool
    assert compared["figures"]["mrr"]["difference"] == 0 and compared["figures"]["mrr"]["p"] == 1
    assert "mrr" in describe(compared)


@pytest.mark.slow
def test_what_a_protocol_lacks_is_said(workspace):
    for arguments, words in (
        (["caption-retrieval"], "none of 11 tracks has a caption that came with its dataset"),
        (["tags"], "no tag is on 10 or more of 11 tracks"),
        (["triplets"], "needs --triplets"),
        (["compare"], "needs --runs A B and --qrels Q"),
        (["probe"], "needs --task, and --model once or more"),
        (["tags", "--task", "genre"], "--task belongs to `raymtr evaluate probe`"),
        (["artist-similarity"], "lists another of them as similar"),
    ):
        with pytest.raises(InputError, match=words):
            protocol(workspace, *arguments)


def test_triplets_are_answered_from_a_table(workspace, tmp_path):
    file = tmp_path / "triplets.csv"
    file.write_text("anchor,nearer,farther\nt00,t01,t02\nt03,t04,t06\n")
    answer = protocol(workspace, "triplets", "--triplets", str(file))
    assert answer["queries"] == {"audio_to_audio": 2, "text_to_audio": 2}
    assert answer["pools"]["audio_to_audio"] == 6
    file.write_text("anchor,nearer\nt00,t01\n")
    with pytest.raises(InputError, match="has no column 'farther'"):
        protocol(workspace, "triplets", "--triplets", str(file))
