"""Log-mel against the reference formula: at most 0.9 of its CPU time alone, 0.5 in batches.

    python benchmarks/log_mel.py

One thread, CPU time, alternating, in one process. The reference is the formula of TTMR++'s code
(and Whisper's) on `torch.stft`. Its floor depends on the whole batch, ours on each clip, so outputs
are compared clip by clip.
"""

from __future__ import annotations

import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from alternate import alternate, least_and_median

from raymtr.model.log_mel import LogMel, mel_filters
from raymtr.tower_specs import AudioSpec

BATCHES = {1: 0.9, 3: 0.5, 8: 0.5, 24: 0.5}  # clips -> target ratio
ROUNDS = 30


def main() -> int:
    torch.set_num_threads(1)
    spec = AudioSpec()
    ours = LogMel(spec)
    window, filters = torch.hann_window(spec.n_fft), torch.from_numpy(mel_filters(spec)).float()

    def reference(waves: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(waves, spec.n_fft, spec.hop, window=window, return_complex=True)
        mel = torch.clamp(filters @ spectrum[..., :-1].abs() ** 2, min=1e-10).log10()
        return (torch.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0

    print(f"torch {torch.__version__}, 1 thread, {ROUNDS} rounds; CPU ms for one clip of 10 s")
    print("clips  reference min/median  ours min/median  ratio min/median target  verdict")
    missed = False
    for clips, target in BATCHES.items():
        generator = torch.Generator().manual_seed(clips)
        waves = 0.1 * torch.randn(clips, spec.window_samples, generator=generator)
        with torch.inference_mode():
            apart = (ours(waves) - torch.cat([reference(w[None]) for w in waves])).abs().max()
            seconds = alternate(
                {"reference": lambda w=waves: reference(w), "ours": lambda w=waves: ours(w)},  # type: ignore[misc]
                rounds=max(6, ROUNDS // clips),
            )
        (low, mid), (our_low, our_mid) = (least_and_median(s) for s in seconds.values())
        met = our_low <= target * low and our_mid <= target * mid and apart < 1e-5
        missed |= not met
        print(
            f"{clips:5d}  {1e3 * low / clips:11.2f} / {1e3 * mid / clips:5.2f}"
            f"  {1e3 * our_low / clips:9.2f} / {1e3 * our_mid / clips:5.2f}"
            f"  {our_low / low:9.2f} / {our_mid / mid:4.2f}  {target:5.2f}"
            f"  {'met' if met else 'MISS'}, outputs {apart:.0e} apart"
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
