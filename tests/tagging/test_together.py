"""One pass gives the rows of two, whether or not the model's tower is the taggers themselves."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from raymtr.embeddings.embed_tracks import REPLICA, EmbedTracks, decode_tracks
from raymtr.embeddings.store import EMBEDDED_SCHEMA, EmbeddingStore, ModelRef
from raymtr.model.model_folder import save_towers
from raymtr.model.pretrained import load_model
from raymtr.model.two_towers import build_towers
from raymtr.recipes import laptop
from raymtr.specs import EmbedSpec
from raymtr.tagging.store import TAGGED_SCHEMA, TagStore, TagTracks, decode_whole
from raymtr.tagging.together import PREFIX, BothStores, EmbedAndTag, decode_for_both
from raymtr.workspace import Workspace

RATE = 32_000
HOW = {"embed": EmbedSpec(), "hung": "/absent"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    folder = tmp_path_factory.mktemp("audio")
    t = np.arange(7 * RATE) / RATE
    tune = 0.3 * np.sin(2 * np.pi * 220 * t) * np.exp(-4 * (t % 0.5))
    soundfile.write(folder / "tune.wav", np.stack([tune, 0.5 * tune], axis=1), RATE)
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    names = ["tune", "absent", "silent"]
    uris = [str(folder / f"{name}.wav") for name in names]
    return pa.table({"track_id": names, "uri": uris, "file_version": pa.nulls(3, pa.string())})


@pytest.fixture(scope="module")
def taggers_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("model") / "laptop")
    save_towers(build_towers(laptop().towers, seed=0), folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("fixture", ["tiny_model", "taggers_model"])
def test_one_pass_gives_the_rows_of_two(
    fixture: str, sources: pa.Table, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(fixture)
    model = load_model(folder, audio_only=True)
    made_by = ModelRef(fingerprint=model.fingerprint, precision="fp32", dim=model.spec.dim)
    spec = model.spec.audio
    on = {"device": "cpu", "threads": 1}
    both = EmbedAndTag(folder, made_by, **on)(
        pa.concat_tables(decode_for_both(sources, spec=spec, **HOW))
    )
    vectors = EmbedTracks(folder, made_by, **on)(
        pa.concat_tables(decode_tracks(sources, spec=spec, **HOW))
    )
    heard = TagTracks(threads=1)(pa.concat_tables(decode_whole(sources, **HOW)))
    assert both["code"].to_pylist() == [None, "missing", "silent"]
    for name in EMBEDDED_SCHEMA.names:  # the same bits
        assert both[name].to_pylist() == vectors[name].to_pylist(), name
    for name in TAGGED_SCHEMA.names:
        if name in ("vector", "windows"):  # a model that is folded otherwise may round otherwise
            one, other = (rows[n][0].as_py() for rows, n in ((both, PREFIX + name), (heard, name)))
            np.testing.assert_allclose(one, other, atol=1e-5)
        else:
            found, wanted = both[PREFIX + name].to_pylist(), heard[name].to_pylist()
            assert found == pytest.approx(wanted) if name == "vocal" else found == wanted, name
    assert len(set(both[REPLICA].to_pylist())) == 1

    workspace = Workspace.open(str(tmp_path / "w"), create=True)
    embeddings = EmbeddingStore(workspace.embeddings(made_by.fingerprint), made_by)
    ears = TagStore(workspace)
    for store in (embeddings, ears):
        store.take()
    BothStores(embeddings, ears).commit(both)
    for store in (embeddings, ears):
        store.release()
        assert sorted(store.done().to_pylist()) == ["absent", "silent", "tune"]
        assert store.read_dead_letters()["code"].to_pylist() == ["missing", "silent"]
    assert embeddings.read_tracks()["track_id"].to_pylist() == ["tune"]
    tracks = ears.read()
    assert tracks is not None and tracks["track_id"].to_pylist() == ["tune"]
