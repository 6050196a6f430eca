"""A small catalog and settings for tests of tokens and of what is generated from them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
import torch

from jobs.tokenize_catalog import fit_and_save
from raymtr import load_model, storage
from raymtr.embeddings.store import ModelRef
from raymtr.embeddings.tables import SOURCES
from raymtr.generation.codec import fit_mel_codec
from raymtr.generation.fit_sample import fit_sample, sentences_of, tunes_of
from raymtr.generation.joint import fit_joint
from raymtr.generation.musiclm_folder import save_musiclm
from raymtr.generation.parts import Parts, codec_rate
from raymtr.generation.quantizer import fit_quantizer
from raymtr.generation.semantic import MusicnnEncoder, SemanticTokens
from raymtr.generation.stages import Stages
from raymtr.generation.token_store import TokenStore
from raymtr.generation.tokenize_tracks import ExtractFitInputs, TokenizeTracks, decode_twice
from raymtr.model.musicnn import Musicnn
from raymtr.recipes import musiclm_small
from raymtr.specs import Settings
from raymtr.track import check_tracks
from raymtr.workspace import Workspace
from tests.generation.conftest import KINDS, MUSICLM, TOKENS, sound, vectors_of


def settings_of(steps: int) -> Settings:
    small = musiclm_small()
    train = dataclasses.replace(
        small.train, steps=steps, global_batch=4, warmup_steps=1, checkpoint_every=2
    )
    tokens = dataclasses.replace(TOKENS, decoder_steps=4, fit_tracks=8, fit_s=2.0)
    return dataclasses.replace(small, tokens=tokens, musiclm=MUSICLM, train=train)


def make_catalog(root: Path) -> Workspace:
    """Ten clips of two kinds, two of them to validate on, and a file that is no audio."""
    rng, rows = np.random.default_rng(0), []
    for n in range(10):
        kind, file = KINDS[n % 2], root / f"{n}.wav"
        soundfile.write(file, sound(kind, rng), 16_000)
        split = "valid" if n >= 8 else "train"
        rows.append({"track_id": f"t{n}", "uri": str(file), "tags": [kind], "split": split})
    (root / "bad.wav").write_bytes(b"RIFF, but no more")
    rows.append({"track_id": "bad", "uri": str(root / "bad.wav"), "split": "train"})
    workspace = Workspace.open(str(root / "w"), create=True)
    table = check_tracks(pa.Table.from_pylist(rows))
    storage.write_table(f"{workspace.tracks}/part-0.parquet", table)
    return workspace


def tokenised(workspace: Workspace, settings: Settings, source: str) -> TokenStore:
    """Tokens of the whole catalog over the towers in `source`, as the job makes them on Ray."""
    model, spec = load_model(source), settings.tokens
    joint = ModelRef(fingerprint=model.fingerprint, precision="fp32", dim=model.spec.dim)
    rate, sample = codec_rate(spec), fit_sample(workspace, spec)
    how = {"spec": model.spec.audio, "rate": rate, "embed": settings.embed}
    hear = ExtractFitInputs(source, joint, spec, rate, threads=1)
    hung = workspace.path("h")
    decoded = decode_twice(sample.select(SOURCES), **how, hung=hung, clip_s=spec.fit_s)
    name = fit_and_save(
        hear(pa.concat_tables(decoded)),
        source=source,
        joint=joint,
        settings=settings,
        sentences=sentences_of(sample),
        tunes=tunes_of(sample),
        workspace=workspace,
    )
    made = TokenStore(workspace, name, spec.joint_levels)
    made.take()
    tokenize = TokenizeTracks(made.parts_folder, source, joint, threads=1)
    catalog = storage.read_tables(workspace.tracks)
    assert catalog is not None
    rows = decode_twice(catalog.select(SOURCES), **how, hung=made.hung)
    made.commit(tokenize(pa.concat_tables(rows)))
    storage.copy_folder(source, made.model_folder, last="config.json")
    made.release()
    return made


def make_musiclm(root: Path, model: str) -> str:
    """The folder of an untrained MusicLM over the towers in folder `model`, in some seconds."""
    rng, spec = np.random.default_rng(0), dataclasses.replace(TOKENS, decoder_steps=2)
    clips = [sound(kind, rng) for kind in KINDS * 2]
    codec, _ = fit_mel_codec(clips, spec)
    semantic = SemanticTokens(MusicnnEncoder(Musicnn()), spec)
    frames = torch.cat([semantic.frames(clip) for clip in clips])
    semantic.quantizer = fit_quantizer(frames, 1, spec.semantic_codes, rounds=2, seed=0)
    vectors = np.concatenate([vectors_of(kind, rng) for kind in KINDS])
    joint = fit_joint(vectors, vectors, spec)
    Parts(spec, codec, semantic, joint, joint_model="none").save(f"{root}/tokens/parts")
    shutil.copytree(model, root / "tokens/model")
    torch.manual_seed(0)
    stages = Stages(spec, MUSICLM, codec_codes=spec.codes)
    save_musiclm(stages, f"{root}/tokens", f"{root}/musiclm", provenance={})
    return f"{root}/musiclm"
