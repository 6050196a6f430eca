"""Small MuLaP models, and features stored as `embed --output features` does."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import torch

from raymtr.embeddings.embed_tracks import decode_tracks
from raymtr.mulap.backbone import open_backbone
from raymtr.mulap.network import Mulap, build_mulap
from raymtr.mulap.store import FeatureTracks, open_features
from raymtr.specs import EmbedSpec, MulapSpec
from raymtr.tower_specs import AudioSpec, AudioTowerSpec, TextTowerSpec, TowersSpec
from raymtr.workspace import Workspace

VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "slow", "fast", "low", "high", "tone")
SPEC = MulapSpec(
    clip_s=2.0,
    text_layers=3,
    audio_layers=2,
    audio_width=16,
    cross_width=16,
    heads=2,
    dropout=0.0,
)


def save_text_encoder(folder: Path) -> None:
    """A BERT of three layers without dropout, and a tokenizer of whole words with a mask token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    numbers = {word: number for number, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=40,
        **{f"{name}_token": token for name, token in names.items()},
    )
    fast.save_pretrained(folder)
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        initializer_range=0.3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)


def mulap_towers(text_folder: str) -> TowersSpec:
    """A ResNet of four blocks at 8 kHz, and the text encoder of `text_folder`."""
    return TowersSpec(
        audio=AudioSpec(sample_rate=8000, window_s=0.5, n_fft=256, hop=100, n_mels=32),
        audio_tower=AudioTowerSpec(layers=(1, 1, 1, 1), width=8, heads=4, dim=24),
        text_tower=TextTowerSpec(source=text_folder, max_tokens=20),
    )


def random_mulap(text_folder: str, seed: int = 0) -> Mulap:
    """A new model of a seed."""
    return build_mulap(mulap_towers(text_folder), SPEC, seed=seed, text_folder=text_folder)


def store_features(workspace: Workspace, run: str, uris: dict[str, str]) -> None:
    """Decode the files of these tracks and commit their features by `run`, in one shard."""
    backbone = open_backbone(workspace.trained(run))
    shards = open_features(workspace, backbone)
    shards.take()
    rows = [{"track_id": name, "uri": uri, "file_version": None} for name, uri in uris.items()]
    tracks = pa.Table.from_pylist(rows)
    decoded = pa.concat_tables(
        decode_tracks(tracks, spec=backbone.spec.audio, embed=EmbedSpec(), hung=shards.hung)
    )
    shards.commit(FeatureTracks(workspace.trained(run), shards.made_by, threads=1)(decoded))
    shards.release()
