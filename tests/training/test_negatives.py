"""What targets are told apart from."""

from dataclasses import replace

import numpy as np
import pytest

from ray_rec.training.negatives import Negatives
from tests.model import toy

POPULARITY = np.log1p(np.array([[0.0], [16.0], [1.0], [0.0]], np.float32))


@pytest.mark.parametrize("exact", [4, 0])
def test_what_nobody_took_is_left_out_where_asked(exact: int) -> None:
    config = replace(toy.PLAIN, exact_items=exact, negatives=500, untaken_negatives=False)
    drawn = Negatives(POPULARITY, config, 7).draw(0)
    assert drawn.row.tolist() == [1, 2]
    # of two items that are offered, with weights 16 ** .75 = 8 and 1, both are all but sure
    assert drawn.log_chance == pytest.approx([0, 0], abs=1e-3)


def test_where_nobody_took_anything_all_are_offered() -> None:
    config = replace(toy.PLAIN, untaken_negatives=False)
    drawn = Negatives(np.zeros((3, 1), np.float32), config, 7).draw(0)
    assert drawn.row.tolist() == [0, 1, 2]
