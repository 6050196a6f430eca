"""What a model is, read off its folder: as a loaded model says it, and without torch."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raymtr.embeddings.embed_tracks import EmbedTracks
from raymtr.embeddings.store import ModelRef
from raymtr.errors import UnusableError
from raymtr.model.identity import FORMAT, read_identity
from raymtr.model.model_folder import save_towers
from raymtr.model.pretrained import load_model
from raymtr.model.two_towers import TwoTowers
from raymtr.validation import Precision


@pytest.fixture
def saved(make_towers: Callable[..., TwoTowers], tmp_path: Path) -> str:
    save_towers(make_towers(), str(tmp_path / "model"))
    return str(tmp_path / "model")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_is_what_the_loaded_model_says(saved: str, precision: Precision) -> None:
    known, model = read_identity(saved, precision), load_model(saved, precision=precision)
    assert known is not None
    assert known.fingerprint == model.fingerprint
    assert (known.spec, known.precision) == (model.spec, model.precision)


@pytest.mark.slow
def test_another_weight_or_precision_is_another_model(
    saved: str, make_towers: Callable[..., TwoTowers], tmp_path: Path
) -> None:
    save_towers(make_towers(seed=9), str(tmp_path / "other"))
    found = [
        read_identity(folder, precision)
        for folder in (saved, str(tmp_path / "other"))
        for precision in ("fp32", "bf16")
    ]
    assert len({known.fingerprint for known in found if known}) == 4


@pytest.mark.slow
def test_torch_is_not_imported(saved: str) -> None:
    code = (
        "import sys\nfrom jobs.embed_catalog import identify\n"
        "print(identify(sys.argv[1], 'fp32').fingerprint, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, saved], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [load_model(saved).fingerprint, "False"]


def test_others_models_have_to_be_loaded(saved: str, tmp_path: Path) -> None:
    assert read_identity("ttmrpp", "fp32") is None
    assert read_identity(str(tmp_path), "fp32") is None
    assert read_identity("s3://bucket/model", "fp32") is None


def test_damage_and_a_newer_format_are_told(saved: str) -> None:
    config = Path(saved, "config.json")
    written = json.loads(config.read_text())
    config.write_text(json.dumps(written | {"format": FORMAT + 1}))
    with pytest.raises(UnusableError, match="newer"):
        read_identity(saved, "fp32")
    config.write_text(json.dumps(written))
    Path(saved, "model.safetensors").write_bytes(b"short")
    with pytest.raises(UnusableError, match="is damaged"):
        read_identity(saved, "fp32")


def test_a_worker_rejects_another_model_than_it_was_sent_for(saved: str) -> None:
    made_by = ModelRef(fingerprint="0" * 12, precision="fp32", dim=8)
    with pytest.raises(UnusableError, match="of model 000000000000"):
        EmbedTracks(saved, made_by, device="cpu", threads=1)
