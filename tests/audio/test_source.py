"""The error of a bad track."""

from __future__ import annotations

import pickle

from raymtr.audio import AudioError


def test_the_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(AudioError("truncated", "decoded 1.00 s of 2.00 s")))
    assert (error.code, error.reason) == ("truncated", "decoded 1.00 s of 2.00 s")
    assert str(error) == "truncated: decoded 1.00 s of 2.00 s"
