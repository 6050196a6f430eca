import hashlib
import itertools
import json
import re
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from raymtr.errors import InputError, UnusableError
from raymtr.synthetic.cast import similar_artists
from raymtr.synthetic.compose import compose
from raymtr.synthetic.instruments import BACKINGS, INSTRUMENTS, LEADS, MODES, PERCUSSION
from raymtr.synthetic.plan import file_name, plan
from raymtr.synthetic.render import LEVELS, SAMPLE_RATE, Renderer, find_soundfont
from raymtr.synthetic.section import Section
from raymtr.synthetic.styles import STYLES
from raymtr.synthetic.synthesize import synthesize
from raymtr.track import check_tracks

PIECES = 9


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, manifest rows) of a small catalog, made by two processes."""
    folder = tmp_path_factory.mktemp("made")
    synthesize(str(folder), pieces=PIECES, seed=3, processes=2)
    return folder, pq.read_table(folder / "manifest.parquet").to_pylist()


@pytest.fixture(scope="module")
def renderer():
    return Renderer(find_soundfont())


def a_section(**changes) -> Section:
    base = Section(
        style="rock",
        lead="violin",
        backing="organ",
        tempo="mid-tempo",
        bpm=100,
        mode="major",
        tonic=2,
        percussion="drums",
        phrasing=None,
        production=None,
        at_least_s=10.0,
    )
    return replace(base, **changes)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# The plan of the real thing


@pytest.fixture(scope="module")
def planned():
    return plan(600, 0)


def test_splits_are_by_artist_and_exact(planned):
    pieces, artists = planned
    assert Counter(p.split for p in pieces) == {"train": 360, "valid": 40, "test": 200}
    splits = defaultdict(set)
    for piece in pieces:
        splits[piece.artist].add(piece.split)
    assert len(splits) == len(artists) == 62
    assert all(len(seen) == 1 for seen in splits.values())


@pytest.mark.parametrize("pieces", [3, 4, 10, 31, 100])
def test_small_catalogs_have_every_split_too(pieces):
    planned, artists = plan(pieces, 1)
    assert len(planned) == pieces
    assert {a.split for a in artists} == {"train", "valid", "test"}
    assert Counter(p.split for p in planned)["test"] == pieces // 3


def test_every_caption_can_have_one_right_answer(planned):
    pieces, _ = planned
    assert len({frozenset(p.tags) for p in pieces}) == len(pieces)
    single = [p for p in pieces if len(p.sections) == 1]
    assert all(5 <= len(p.tags) <= 8 for p in single)
    assert len({p.track_id for p in pieces}) == len({p.uri.casefold() for p in pieces}) == 600
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", p.track_id) for p in pieces)


def test_what_is_tested_can_be_learned(planned):
    pieces, _ = planned
    of = {s: Counter(t for p in pieces if p.split == s for t in p.tags) for s in ("train", "test")}
    assert set(of["test"]) <= set(of["train"])
    assert min(of["train"].values()) >= 5
    assert set(STYLES) | set(LEADS) | set(BACKINGS) <= set(of["train"])


def test_names_are_distinct_varied_and_say_nothing_of_the_sound(planned):
    pieces, artists = planned
    titles, names = [p.title for p in pieces], [a.name for a in artists]
    assert len({t.casefold() for t in titles}) == 600
    assert len({n.casefold() for n in names}) == 62
    tag_words = {w for p in pieces for t in p.tags for w in re.findall(r"\w+", t.casefold())}
    named = [*titles, *names, *(p.album for p in pieces)]
    words = {w for name in named for w in re.findall(r"\w+", name.casefold())}
    assert not words & (tag_words - {"no", "the"})
    everything = "".join(named)
    assert "'" in everything and re.search("[а-я]", everything) and re.search("[一-龠]", everything)
    pairs = Counter(frozenset(t.split()) for t in titles)
    assert max(pairs.values()) == 1


def test_the_graph_is_of_shared_taste_and_reaches_into_training(planned):
    _, artists = planned
    by_name = {a.name: a for a in artists}
    neighbours = defaultdict(list)
    for artist, other, score in similar_artists(artists):
        assert artist != other and 0 < score <= 1
        a, b = by_name[artist], by_name[other]
        assert {*a.styles, *a.leads, *a.backings} & {*b.styles, *b.leads, *b.backings}
        neighbours[artist].append((score, other))
    assert set(neighbours) == set(by_name)
    assert all(3 <= len(found) <= 8 for found in neighbours.values())
    assert all(found == sorted(found, key=lambda f: -f[0]) for found in neighbours.values())
    for artist in artists:
        if artist.split != "train":
            assert any(by_name[n].split == "train" for _, n in neighbours[artist.name])


def test_file_names_fit_any_file_system():
    assert file_name("AC/DC Adapter") == "AC_DC Adapter"
    assert file_name("What If...?") == "What If..._"
    assert file_name("夜の橋") == "夜の橋"
    assert file_name("..") == "_" and file_name(" a. ") == "a"


# Notes


def notes_of(section: Section, part: str, seed: int = 0):
    found = [n for n in compose(section, np.random.default_rng(seed)) if n.part == part]
    return sorted(found, key=lambda n: n.start_s)


def test_rhythms_fill_their_bars_and_every_style_can_be_played():
    for name, style in STYLES.items():
        lines = [style.bass, style.kick, style.snare, style.hat, *style.melodies]
        assert {len(line) for line in lines} == {style.steps}, name
        assert style.steps % style.beats == 0
        for mode, tempo, percussion in itertools.product(
            style.modes, style.tempi, (None, *style.percussion)
        ):
            bpm = {"slow": 70, "mid-tempo": 100, "fast": 150}[tempo]
            section = a_section(style=name, mode=mode, tempo=tempo, bpm=bpm, percussion=percussion)
            notes = compose(section, np.random.default_rng(0))
            parts = {"lead", "backing", "bass"} | ({"drums"} if percussion else set())
            assert {n.part for n in notes} == parts
            assert max(n.start_s for n in notes) < section.bars * section.bar_s
            assert all(0 < n.velocity < 128 and n.length_s > 0 for n in notes)


@pytest.mark.parametrize("mode", MODES)
def test_the_mode_is_in_the_notes(mode):
    section = a_section(mode=mode, style="ballad", tonic=9)
    allowed = {(9 + step) % 12 for step in MODES[mode]} | ({8} if mode == "minor" else set())
    notes = [*notes_of(section, "lead"), *notes_of(section, "backing")]
    classes = Counter(n.key % 12 for n in notes)
    assert set(classes) <= allowed
    third = (9 + MODES[mode][2]) % 12
    assert classes[third] / len(notes) > 0.1
    assert notes_of(section, "lead")[-1].key % 12 == 9


def test_phrasings_are_what_they_say():
    def lead(phrasing):
        return notes_of(a_section(phrasing=phrasing), "lead")[:-1]

    def rate(notes):
        return len(notes) / 10

    plain = lead(None)
    assert rate(lead("sparse")) < 0.7 < rate(plain)
    assert rate(lead("fast runs")) > 6
    assert max(n.length_s for n in lead("staccato")) < 0.12
    assert np.mean([n.length_s for n in lead("legato")]) > 0.9
    runs = np.diff([n.key for n in lead("fast runs")])
    assert np.mean(np.abs(runs) <= 2) > 0.8
    arpeggio = np.abs(np.diff([n.key for n in lead("arpeggios")]))
    assert np.mean(arpeggio >= 3) > 0.8
    repeated = np.diff([n.key for n in lead("repeated notes")])
    assert np.mean(repeated == 0) > 0.7
    trills = np.abs(np.diff([n.key for n in lead("trills")]))
    assert np.mean((trills == 1) | (trills == 2)) > 0.8


def test_leads_stay_in_range():
    for lead in LEADS:
        instrument = INSTRUMENTS[lead]
        for phrasing in ("arpeggios", "fast runs", "trills", None):
            keys = [n.key for n in notes_of(a_section(lead=lead, phrasing=phrasing), "lead")]
            assert instrument.low <= min(keys) and max(keys) <= instrument.high


def test_swing_moves_the_off_beats():
    late = [n.start_s * 100 / 60 % 1 for n in notes_of(a_section(style="swing"), "lead")]
    straight = [n.start_s * 100 / 60 % 1 for n in notes_of(a_section(style="rock"), "lead")]
    assert any(abs(phase - 0.667) < 0.03 for phase in late)
    assert not any(abs(phase - 0.667) < 0.03 for phase in straight)


# Sound


def band_share(sound: np.ndarray, low: float, high: float) -> float:
    power = np.abs(np.fft.rfft(sound.mean(axis=1))) ** 2
    hz = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)
    return float(power[(hz >= low) & (hz < high)].sum() / power.sum())


def spectrum_db(sound: np.ndarray) -> np.ndarray:
    """Mean log power of 64 log-spaced bands: a timbre, without time."""
    frames = np.lib.stride_tricks.sliding_window_view(sound.mean(axis=1), 1024)[::512]
    power = (np.abs(np.fft.rfft(frames * np.hanning(1024))) ** 2).mean(axis=0)
    edges = np.geomspace(2, 512, 65).astype(int)
    bands = [power[a : max(b, a + 1)].mean() for a, b in itertools.pairwise(edges)]
    return 10 * np.log10(np.array(bands) + 1e-6)


def test_every_instrument_sounds_over_its_whole_range(renderer):
    for name, instrument in INSTRUMENTS.items():
        for key in (instrument.low, (instrument.low + instrument.high) // 2, instrument.high):
            note = notes_of(a_section(), "lead")[0]._replace(start_s=0.0, length_s=0.3, key=key)
            sound = renderer.play(a_section(lead=name), "lead", [note], 8_000)
            assert np.abs(sound).max() > 0.01, (name, key)


def test_percussion_kinds_sound_and_differ(renderer):
    heard = {}
    for kind in PERCUSSION:
        section = a_section(percussion=kind)
        drums = notes_of(section, "drums")
        heard[kind] = spectrum_db(renderer.play(section, "drums", drums, 5 * SAMPLE_RATE))
    for one, other in itertools.combinations(heard, 2):
        assert np.abs(heard[one] - heard[other]).mean() > 3


def test_a_section_does_not_depend_on_what_was_played_before(renderer):
    section = a_section(lead="cello", production="reverb")
    first = Renderer(find_soundfont()).render(section, np.random.default_rng(1))
    renderer.render(a_section(style="ambient", backing="choir"), np.random.default_rng(2))
    assert np.array_equal(first, renderer.render(section, np.random.default_rng(1)))


def test_productions_are_heard(renderer):
    def sound(production):
        return renderer.render(a_section(production=production), np.random.default_rng(0))

    dry, reverb, dull = sound(None), sound("reverb"), sound("lo-fi")
    assert band_share(dull, 4_000, 11_025) < 0.2 * band_share(dry, 4_000, 11_025)

    def quiet_share(x):
        level = np.sqrt((x[: len(x) // 512 * 512].reshape(-1, 1024) ** 2).mean(axis=1))
        return np.quantile(level, 0.1) / np.median(level)

    assert quiet_share(reverb) > quiet_share(dry)
    assert not np.allclose(sound("echo"), dry, atol=0.05)


def test_leads_can_be_distinguished_whatever_they_play(renderer):
    leads = ("violin", "music box", "trombone", "distorted guitar", "flute")
    heard = []
    for index, lead in enumerate(leads * 3):
        section = a_section(lead=lead, at_least_s=4.0, style=list(STYLES)[index % 7])
        heard.append(spectrum_db(renderer.render(section, np.random.default_rng(index))))
    distances = np.abs(np.array(heard)[:, None] - np.array(heard)[None]).mean(axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argmin(axis=1)
    right = sum(leads[i % 5] == leads[nearest[i] % 5] for i in range(len(heard)))
    assert right / len(heard) > 0.5  # chance is 2 of 14


# The files


@pytest.mark.slow
def test_the_manifest_is_a_catalog(made):
    folder, rows = made
    table = check_tracks(pq.read_table(folder / "manifest.parquet"))
    assert table.num_rows == PIECES and set(table["dataset"].to_pylist()) == {"made"}
    for row in rows:
        assert not Path(row["uri"]).is_absolute()
        sound, rate = soundfile.read(folder / row["uri"], dtype="float32", always_2d=True)
        assert rate == SAMPLE_RATE and sound.shape[1] == 2
        assert len(sound) / rate == pytest.approx(row["duration"]) and row["duration"] >= 10
        assert 0.7 < np.abs(sound).max() < 0.85
        seconds = np.sqrt((sound[: len(sound) // rate * rate].reshape(-1, 2 * rate) ** 2).mean(1))
        assert seconds[:-1].min() > 1e-3, f"{row['track_id']} is silent for a second"
        with soundfile.SoundFile(folder / row["uri"]) as file:
            assert (file.title, file.artist) == (row["title"], row["artist"])
            assert (file.album, file.date) == (row["album"], str(row["year"]))
            assert file.genre in STYLES


def test_long_pieces_say_what_is_where(made):
    folder, rows = made
    sections = json.loads((folder / "sections.json").read_text())
    long = {row["track_id"]: row for row in rows if row["duration"] > 40}
    assert set(sections) == set(long) and long
    for track_id, parts in sections.items():
        row = long[track_id]
        assert len(parts) == 3 and row["tempo_bpm"] is None and row["key"] is None
        assert parts[0]["start_s"] == 0 and parts[-1]["end_s"] == pytest.approx(row["duration"])
        assert all(a["end_s"] == b["start_s"] for a, b in itertools.pairwise(parts))
        assert all(part["end_s"] - part["start_s"] >= 10 for part in parts)
        assert len({part["tags"][0] for part in parts}) == 3
        assert {tag for part in parts for tag in part["tags"][:2]} == set(row["tags"])


def test_short_pieces_know_tempo_and_key(made):
    _, rows = made
    for row in (row for row in rows if row["duration"] < 40):
        words = {"slow": (50, 85), "mid-tempo": (90, 115), "fast": (130, 170)}
        low, high = next(words[tag] for tag in row["tags"] if tag in words)
        assert low < row["tempo_bpm"] < high
        assert row["key"].endswith(row["mode"]) and row["mode"] in MODES


@pytest.mark.slow
def test_same_seed_same_bytes_in_any_number_of_processes(made, tmp_path):
    folder, _ = made
    answer = synthesize(str(tmp_path / "again"), pieces=PIECES, seed=3, processes=1)
    assert not answer["reused"]
    assert digests(tmp_path / "again") == digests(folder)


@pytest.mark.slow
def test_finished_is_used_again_unfinished_or_another_made_anew(tmp_path):
    first = synthesize(str(tmp_path), pieces=3, seed=0, processes=1)
    whole = digests(tmp_path)
    again = synthesize(str(tmp_path), pieces=3, seed=0, processes=1)
    assert again == first | {"reused": True} and digests(tmp_path) == whole
    marker = json.loads((tmp_path / "made.json").read_text())
    del marker["finished"]
    (tmp_path / "made.json").write_text(json.dumps(marker))
    next(tmp_path.rglob("*.flac")).write_bytes(b"half")
    synthesize(str(tmp_path), pieces=3, seed=0, processes=1)
    assert digests(tmp_path) == whole
    synthesize(str(tmp_path), pieces=3, seed=1, processes=1)
    rows = pq.read_table(tmp_path / "manifest.parquet").to_pylist()
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.flac")}
    assert files == {row["uri"] for row in rows} != set(whole)


def test_refusals_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="got 2 pieces"):
        synthesize(str(tmp_path), pieces=2)
    with pytest.raises(InputError, match="local folder"):
        synthesize("s3://bucket/made", pieces=3)
    (tmp_path / "own" / "audio").mkdir(parents=True)
    (tmp_path / "own" / "audio" / "mine.flac").write_bytes(b"precious")
    with pytest.raises(InputError, match="empty folder"):
        synthesize(str(tmp_path / "own"), pieces=3)
    assert (tmp_path / "own" / "audio" / "mine.flac").read_bytes() == b"precious"
    monkeypatch.setitem(sys.modules, "tinysoundfont", None)
    with pytest.raises(UnusableError, match="make setup"):
        synthesize(str(tmp_path / "new"), pieces=3)


def test_parts_are_balanced_by_design(renderer):
    assert LEVELS["lead"] > max(LEVELS[part] for part in ("backing", "bass", "drums"))
