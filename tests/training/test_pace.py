"""How large the next window is: by records, by bytes, and while a stream catches up."""

import pytest

from ray_rec.errors import ConfigError
from ray_rec.log.window import Window
from ray_rec.training.config import TrainingConfig
from ray_rec.training.pace import Pace


def pace(catches_up: bool = True, **settings: int) -> Pace:
    return Pace(TrainingConfig(**{"window_records": 100, **settings}), catches_up)


def test_windows_grow_while_behind_and_are_level_again_after() -> None:
    sizes = pace(max_window_records=350)
    assert [sizes.next(waiting) for waiting in (5_000, 4_900, 4_700, 4_350)] == [100, 200, 350, 350]
    assert sizes.next(100) == 100
    sizes.settle()
    assert [sizes.next(waiting) for waiting in (101, 300)] == [100, 200]


def test_the_largest_window_is_four_times_the_usual_one_unless_told() -> None:
    sizes = pace()
    assert [sizes.next(9_000) for _ in range(4)] == [100, 200, 400, 400]


def test_a_bounded_run_takes_the_usual_size() -> None:
    sizes = pace(catches_up=False)
    assert [sizes.next(9_000) for _ in range(3)] == [100, 100, 100]


def test_bytes_bound_a_window_by_the_topic_with_the_largest_records() -> None:
    sizes = pace(window_bytes=10_000)
    assert sizes.level() == 7  # 10,000 / (1.25 · 1,024 assumed)
    window = Window(0, {"events": {0: (0, 30), 1: (5, 15)}, "items": {0: (0, 10)}})
    sizes.observe(window, {"events": 40 * 50, "items": 10 * 200, "exposures": 0})
    assert sizes.level() == 40  # 10,000 / (1.25 · 200)
    assert [sizes.next(9_000) for _ in range(3)] == [40, 40, 40]


def test_what_was_read_lately_counts_more() -> None:
    sizes = pace(window_bytes=40_000)
    sizes.observe(Window(0, {"events": {0: (0, 100)}}), {"events": 100 * 100})
    sizes.observe(Window(1, {"events": {0: (100, 200)}}), {"events": 100 * 1_000})
    # (0.9 · 10,000 + 100,000) / (0.9 · 100 + 100) = 573.7 bytes a record
    assert sizes.level() == int(40_000 / (1.25 * 109_000 / 190)) == 55


def test_sizes_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_window_records is 50; it must be at least"):
        TrainingConfig(window_records=100, max_window_records=50)
    with pytest.raises(ConfigError, match="keep_plans is 50; it must be at least"):
        TrainingConfig(keep_plans=50, replay_horizon=100)
    with pytest.raises(ConfigError, match="window_bytes is 0"):
        TrainingConfig(window_bytes=0)
