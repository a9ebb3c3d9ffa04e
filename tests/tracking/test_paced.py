"""A tracker that hears less often than it is told."""

from collections.abc import Mapping
from contextlib import closing

import pytest

from ray_rec.tracking.paced import Paced


class Heard:
    """Keeps the windows that it hears; fails where it is told to."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.fails = self.closed = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.fails:
            raise OSError("no space left")
        self.steps.append(step)

    def close(self) -> None:
        self.closed = True


def test_windows_keep_their_distance_and_the_last_is_always_heard() -> None:
    heard, now = Heard(), [0.0]
    with closing(Paced(heard, every_s=5.0, clock=lambda: now[0])) as paced:
        for step in range(10):  # a window in two seconds
            paced.log(step, {"window": step})
            now[0] += 2.0
        assert heard.steps == [0, 3, 6, 9]
        paced.log(10, {"window": 10.0})
        paced.log(11, {"window": 11.0})
    assert heard.steps == [0, 3, 6, 9, 11]
    assert heard.closed


def test_a_window_that_repeats_is_heard_once() -> None:
    heard = Heard()
    with closing(Paced(heard, every_s=0.0)) as paced:
        for step in (3, 3, 4, 2, 2):  # none comes; learned again after a failure
            paced.log(step, {})
    assert heard.steps == [3, 4, 2]


def test_a_tracker_that_fails_is_asked_as_seldom_as_any_other_and_closed() -> None:
    heard, now = Heard(), [0.0]
    paced = Paced(heard, every_s=5.0, clock=lambda: now[0])
    heard.fails = True
    with pytest.raises(OSError, match="no space left"):
        paced.log(0, {})
    paced.log(1, {})  # one second later, nobody is asked
    heard.fails, now[0] = False, 5.0
    paced.log(1, {})
    assert heard.steps == [1]
    heard.fails = True
    paced.log(2, {})
    with pytest.raises(OSError, match="no space left"):
        paced.close()
    assert heard.closed
