"""Charts as SVG: where stages, whiskers and lines are drawn."""

import re

from ray_rec.evaluation.reports.charts import lines, stages


def test_stages_are_evenly_apart_with_whiskers_of_one_error() -> None:
    found = stages(
        "HR", "events", ["0", "1", ">1"], {"a": [(0.1, 0.05), None, (0.2, float("nan"))]}
    )
    # One stage is left, in the first third of 52 to 548 pixels: 0.1, under a top of 1.05 * 0.15,
    # within 12 and 226 pixels.
    assert re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', found) == [("134.7", "90.1")]
    whisker = re.search(r'<line x1="134.7" x2="134.7" y1="([\d.]+)" y2="([\d.]+)"', found)
    assert whisker
    assert whisker.groups() == ("158.1", "22.2")
    assert [text for text in ("0", "1", "&gt;1") if f'middle">{text}<' in found] == [
        "0", "1", "&gt;1",
    ]  # fmt: skip
    assert "<title>a: 0.1 at 0</title>" in found


def test_nothing_known_is_no_figure() -> None:
    assert stages("HR", "events", ["0", "1"], {"a": [None, (float("nan"), 0.1)]}) == ""
    assert lines("HR", "window", {"a": [(1, float("nan"))]}) == ""


def test_losses_begin_at_the_least() -> None:
    found = lines("loss", "pass", {"a": [(1, 5.0), (2, 4.0)]}, zero=False)
    # 4 at the bottom, 226 pixels; 5 under a top of 5.05: 226 - 1/1.05 * 214.
    assert re.findall(r'cy="([\d.]+)"', found) == ["22.2", "226.0"]


def test_no_model_is_left_out_for_want_of_a_colour() -> None:
    names = [f"m{number}" for number in range(20)]
    found = lines("HR", "window", {name: [(1.0, 0.5), (2.0, 0.6)] for name in names})
    assert found.count("<polyline") == 20
    assert all(f"</i>{name}</span>" in found for name in names)
