"""Part of `on_gpu.py`: times, each against the minimum for the same work on this machine."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch
from alternate import alternate
from gpu_models import llama, roberta_towers, settings_of
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from raymtr.captions.base_model import add_lora
from raymtr.captions.learning.step import FinetuneStep
from raymtr.captions.learning.step import TokenBatch as Examples
from raymtr.captions.prompt import IGNORED
from raymtr.embeddings.embed_tracks import DECODED, EmbedTracks
from raymtr.embeddings.store import ModelRef
from raymtr.model.exact import exact_float32
from raymtr.model.golden import golden_sounds
from raymtr.model.log_mel import LogMel
from raymtr.model.model import Model
from raymtr.model.two_towers import TwoTowers
from raymtr.training.contrastive_loss import contrastive_loss
from raymtr.training.step import Batch, TrainStep

ROUNDS, TOY_ROUNDS = 5, 1
TEXT_TOKENS, TEXT_GROUPS = 32, 4
Rows = Iterator[tuple[str, str]]
Run = Callable[[], object]


def log_mel(device: torch.device, toy: bool) -> Rows:
    """The log-mel of both devices compared, and its time."""
    spec = settings_of(toy=toy).towers.audio
    here, there = LogMel(spec), LogMel(spec).to(device)
    waves = torch.from_numpy(np.tile(golden_sounds(spec), (1 if toy else 10, 1)))
    resident = waves.to(device)
    with exact_float32():
        apart = float((here(waves) - there(resident).cpu()).abs().max())
        seconds = timed(device, {"CPU": lambda: here(waves), "GPU": lambda: there(resident)})
    ms = {name: 1e3 * each / len(waves) for name, each in seconds.items()}
    yield (
        f"{len(waves)} windows of {spec.window_s:g} s on {device.type} against a CPU",
        f"{ms['GPU']:.3f} against {ms['CPU']:.3f} ms per window; largest difference {apart:.1e}",
    )


def embedding(device: torch.device, toy: bool) -> Rows:
    """The actor's own call over decoded tracks against a loop over windows already on the GPU."""
    model = Model(roberta_towers(settings_of(toy=toy), toy=toy), precision="bf16")
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model")
        made_by = ModelRef(fingerprint=model.fingerprint, precision="bf16", dim=model.spec.dim)
        actor = EmbedTracks(
            f"{folder}/model", made_by, device=str(device), threads=torch.get_num_threads()
        )
    yield "golden vectors of the CPU", f"right, cosine {actor.model.check_golden():.6f} at least"
    forward, samples = actor.model._audio_forward, model.spec.audio.window_samples
    table = decoded(tracks=2 if toy else 128, samples=samples)
    count = len(table) * len(table["starts_s"][0])
    resident = torch.from_numpy(noise(forward.batch, samples)).to(device)

    def loop() -> None:
        for _ in range(count // forward.batch):
            forward._begin(resident, None)

    seconds = timed(device, {"actor": lambda: actor(table), "loop": loop})
    rates = {name: count / each for name, each in seconds.items()}
    yield (
        "windows per second in bf16, the actor's call against a loop over resident windows",
        f"{rates['actor']:.1f} against {rates['loop']:.1f}: "
        f"{rates['actor'] / rates['loop']:.2f}; {busy(device, lambda: actor(table))}",
    )


def decoded(*, tracks: int, samples: int) -> pa.Table:
    """The decoder's output for the actor: a block of tracks of two windows."""
    row = {
        "uri": "",
        "starts_s": [0.0, 1.0],
        "seconds": 60.0,
        "samples": noise(2, samples).tobytes(),
    }
    return pa.Table.from_pylist([row | {"track_id": str(i)} for i in range(tracks)], schema=DECODED)


def training(device: torch.device, toy: bool) -> Rows:
    """The train step, which copies its batch to the GPU, against a loop with resident data."""
    settings = settings_of(toy=toy)
    size = settings.train.global_batch
    while size >= 8:
        try:
            yield train_step(roberta_towers(settings, toy=toy), size, device, toy)
            return
        except torch.OutOfMemoryError:
            yield f"batch {size}", "does not fit"
        size //= 2
        torch.cuda.empty_cache()


def train_step(towers: TwoTowers, size: int, device: torch.device, toy: bool) -> tuple[str, str]:
    """One row: `TrainStep` and a bare step of the same towers and loss."""
    spec = settings_of(toy=toy).train
    tokens = torch.randint(5, 300, (size // TEXT_GROUPS, TEXT_TOKENS))
    group = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    waves = torch.from_numpy(noise(size, towers.spec.audio.window_samples))
    batch = Batch(waves=waves, texts=[group] * TEXT_GROUPS)
    ours = TrainStep(copy.deepcopy(towers), spec, device)
    plain = towers.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=spec.learning_rate)
    resident = batch.to(device)

    def bare() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=spec.precision == "bf16"):
            audio = plain.embed_audio(resident.waves)
            text = torch.cat([plain.embed_text(**group) for group in resident.texts])
        contrastive_loss(audio, text, plain.logit_scale).backward()
        optimizer.step()

    seconds = timed(device, {"ours": lambda: ours(batch, 0), "bare": bare})
    memory = peak(device, lambda: ours(batch, 0)), peak(device, bare)
    return (
        f"batch {size}, {spec.precision}: against a bare step whose batch is resident",
        f"{seconds['ours']:.3f} against {seconds['bare']:.3f} s: "
        f"{seconds['bare'] / seconds['ours']:.2f}; peak memory {memory[0]} against {memory[1]}",
    )


def lora(device: torch.device, toy: bool) -> Rows:
    """A LoRA step of the paper's recipe on a whole base."""
    precision = "fp32" if toy else "bf16"
    spec = replace(settings_of(toy=toy).finetune, quantization="none", precision=precision)
    base = llama(device, toy=toy)
    weights = sum(weight.numel() for weight in base.parameters())
    trainer = FinetuneStep(add_lora(base, spec), spec, device=device, steps=100, rate=2e-5)
    ids = torch.randint(5, 300, (spec.batch, spec.max_tokens))
    labels = ids.clone()
    labels[:, : spec.max_tokens // 2] = IGNORED  # the prompt
    batch = Examples(ids, torch.ones_like(ids), labels)
    seconds = timed(device, {"step": lambda: trainer(batch, 0)})["step"]
    yield (
        f"{weights / 1e9:.2f} x 10^9 weights, {spec.batch} examples of {spec.max_tokens} tokens, "
        f"{precision}",
        f"{ids.numel() / seconds:.0f} tokens per second; "
        f"peak memory {peak(device, lambda: trainer(batch, 0))}",
    )


def noise(count: int, samples: int) -> np.ndarray:
    """float32 [count, samples]: the content does not affect timings."""
    return 0.1 * np.random.default_rng(0).standard_normal((count, samples), dtype=np.float32)


def timed(device: torch.device, sides: dict[str, Run]) -> dict[str, float]:
    """Median wall seconds of each side, in turn; waits for the GPU's work."""
    runs = {name: (lambda run=run: (run(), wait(device))) for name, run in sides.items()}
    seconds = alternate(
        runs, rounds=ROUNDS if device.type == "cuda" else TOY_ROUNDS, clock=time.perf_counter
    )
    return {name: statistics.median(each) for name, each in seconds.items()}


def wait(device: torch.device) -> None:
    """Waits until the GPU has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def busy(device: torch.device, run: Run) -> str:
    """The share of the wall time in which the GPU ran a kernel or a copy."""
    if device.type == "cpu":
        return "no GPU to keep busy"
    started = time.perf_counter()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        run()
        wait(device)
    wall = time.perf_counter() - started
    events = (e for e in seen.key_averages() if e.device_type == DeviceType.CUDA)
    return f"GPU busy {1e-6 * sum(e.self_device_time_total for e in events) / wall:.0%} of the time"


def peak(device: torch.device, run: Run) -> str:
    """Peak memory of tensors during `run`."""
    if device.type == "cpu":
        return "not measured"
    torch.cuda.reset_peak_memory_stats(device)
    run()
    wait(device)
    return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB"
