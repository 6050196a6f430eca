"""Unit vectors: scaled in float32, a zero row stays zero and is no unit vector."""

import numpy as np

from raymtr.vectors import is_unit, unit


def test_rows_of_any_shape_get_length_one() -> None:
    rows = np.random.default_rng(0).standard_normal((3, 2, 8))
    made = unit(rows)
    assert made.dtype == np.float32 and made.shape == rows.shape
    np.testing.assert_allclose(np.linalg.norm(made, axis=-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(unit(rows[0, 0]), made[0, 0])


def test_what_is_zero_or_not_finite_is_no_unit_vector() -> None:
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]], np.float16)
    with np.errstate(invalid="ignore"):
        assert is_unit(unit(rows)).tolist() == [True, False, False, False]
    assert not is_unit(rows[:1]).any()
