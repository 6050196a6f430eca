"""A model under MTEB's encoder protocol; it runs where the package `mteb` is installed."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

from raymtr.errors import InputError, UnusableError
from raymtr.evaluation.mteb_encoder import MtebEncoder
from raymtr.model.model import Model
from raymtr.model.pretrained import load_model


@pytest.fixture(scope="module")
def model(tiny_model: str) -> Model:
    return load_model(tiny_model)


def test_without_the_package_the_cure_is_named(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(UnusableError, match=r"pip install 'mteb>=2.26'"):
        MtebEncoder(model, "me/first")


@pytest.fixture
def mteb() -> Any:
    return pytest.importorskip("mteb", reason="the package mteb is not installed")


def test_it_follows_the_protocol(mteb: Any, model: Model) -> None:
    from datasets import Dataset, Features, Value
    from mteb.models.models_protocols import EncoderProtocol
    from torch.utils.data import DataLoader

    encoder = MtebEncoder(model, "me/first")
    assert isinstance(encoder, EncoderProtocol)
    assert encoder.mteb_model_meta.embed_dim == model.spec.dim
    with pytest.raises(InputError, match="owner/model, got 'first'"):
        MtebEncoder(model, "first")

    texts = ["sad piano", "a fast happy jazz song", "drums"]
    words = encoder.encode(DataLoader(Dataset.from_dict({"text": texts}), batch_size=2))
    np.testing.assert_allclose(words, model.encode_text(texts), atol=1e-6)

    rng = np.random.default_rng(0)
    rate = model.spec.audio.sample_rate
    waves = [rng.uniform(-0.5, 0.5, rate).astype(np.float32) for _ in range(3)]

    class Sounds:
        """A dataset of decoded audio, as MTEB hands it over."""

        features = Features({"audio": {"array": [Value("float32")]}})

        def __len__(self) -> int:
            return len(waves)

        def __getitem__(self, place: int) -> dict[str, Any]:
            return {"audio": {"array": waves[place], "sampling_rate": rate}}

    heard = encoder.encode(DataLoader(Sounds(), batch_size=2))
    expected = model.encode_audio([(wave, rate) for wave in waves])
    np.testing.assert_allclose(heard, expected, atol=1e-5)
    cosines = encoder.similarity(words, torch.from_numpy(heard))
    np.testing.assert_allclose(cosines, words @ heard.T, atol=1e-5)
    pairs = encoder.similarity_pairwise(words, heard)
    np.testing.assert_allclose(pairs, np.diag(cosines), atol=1e-5)
    with pytest.raises(InputError, match="MTEB asks for image"):
        encoder.encode(DataLoader(Dataset.from_dict({"image": [1]})))
