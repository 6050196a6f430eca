"""Figures of tokens whose entropy is known."""

from __future__ import annotations

import numpy as np
import pytest

from raymtr.generation.token_report import report_codebooks


def test_figures_of_known_tokens() -> None:
    """Semantic tokens alternate: one bit alone, none given the one before. Acoustic ones repeat."""
    semantic = np.tile([0, 1], 50)
    acoustic = np.stack([np.zeros(100, np.int64), np.arange(100) % 4], axis=1)
    books = report_codebooks([(semantic, acoustic)], semantic_codes=4, codes=8)
    assert books["semantic"]["entropy_bits"] == pytest.approx(1)
    assert books["semantic"]["entropy_given_before_bits"] == pytest.approx(0, abs=1e-3)
    assert books["semantic"]["used"] == 0.5 and books["semantic"]["repeats"] == 0
    assert books["acoustic 1"]["repeats"] == 1 and books["acoustic 1"]["entropy_bits"] == 0
    assert books["acoustic 2"]["entropy_bits"] == pytest.approx(2)
