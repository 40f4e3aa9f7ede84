"""Masks told from k-space: lines, points, and slices that differ."""

import numpy as np
import pytest

from iasolve.sampling import measured_positions


def planes(*masks):
    return np.stack([np.broadcast_to(mask, (9, 12)) for mask in masks])


COLUMNS = (np.arange(12) % 3 == 0)[None, :]
ROWS = (np.arange(9) % 2 == 0)[:, None]


@pytest.mark.parametrize(("mask", "kind"), [(COLUMNS, "columns"), (ROWS, "rows"), (COLUMNS & ROWS, "entries")])
def test_one_mask_for_slices_alike(mask, kind):
    nonzero = planes(mask, mask)
    found, what = measured_positions(nonzero)
    assert what == kind
    np.testing.assert_array_equal(found, nonzero[:1])


def test_a_few_zeros_of_a_line_are_values():
    nonzero = np.broadcast_to(np.arange(20) % 4 == 0, (1, 20, 20)).copy()
    nonzero[0, 7, 4] = False
    found, what = measured_positions(nonzero)
    assert what == "columns"
    assert found[0, 7, 4]
    assert found.sum() == 100


def test_slices_that_differ_keep_their_own():
    nonzero = planes(COLUMNS, np.roll(COLUMNS, 1, axis=1))
    np.testing.assert_array_equal(measured_positions(nonzero)[0], nonzero)


def test_a_blank_slice_tells_nothing():
    blank = planes(np.zeros_like(COLUMNS), COLUMNS)
    found, what = measured_positions(blank)
    assert what == "columns"
    np.testing.assert_array_equal(found, blank[1:])
