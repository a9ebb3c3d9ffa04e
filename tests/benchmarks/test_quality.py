"""`make results` at its smallest: one row of a tiny table, measured, kept and put on the page."""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from benchmarks import _results, quality
from benchmarks._tables import sections

ROW = """
[[row]]
name = "tiny"
title = "Three shoppers"
data = "tea"
protocol = "leave-one-out"
models = ["popularity", "random"]
references = ["random"]
"""
MARK = "<!-- tables: python -m benchmarks.quality -->"
TAKEN = {"ann": (0, 1, 2), "bob": (0, 2, 1), "cem": (0, 3, 1)}
"""Items of each shopper in order, the last asked for. Learned: 0 three times, 1 to 3 once."""


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Measure":
    for name in ("FOLDER", "KEPT"):
        monkeypatch.setattr(quality, name, tmp_path / name)
    (tmp_path / "rows.toml").write_text(ROW)
    monkeypatch.setattr(quality, "ROWS", tmp_path / "rows.toml")
    (tmp_path / "page.md").write_text(f"Said by hand.\n\n{MARK}\n\nold tables\n")
    monkeypatch.setattr(_results, "PAGE", tmp_path / "page.md")
    return Measure(tmp_path, monkeypatch)


class Measure:
    """Runs the command in a folder of its own; gives the page that it writes."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self._monkeypatch = place, monkeypatch

    def __call__(self, *arguments: str) -> list[str]:
        self._monkeypatch.setattr(sys, "argv", ["quality", *arguments])
        assert quality.main() == 0
        return (self.place / "page.md").read_text().splitlines()


def write_tables(folder: Path) -> None:
    """Twelve items, of which eight are never taken."""
    folder.mkdir(parents=True)
    taken = [(user, f"i{item}", n) for user, items in TAKEN.items() for n, item in enumerate(items)]
    users, items, order = zip(*taken, strict=True)
    events = {"user_id": users, "item_id": items, "ts": [1_700_000_000_000 + n for n in order]}
    events["event_type"] = ["purchase"] * len(taken)
    parquet.write_table(pa.table(events), folder / "events.parquet")
    named = {"item_id": [f"i{n}" for n in range(12)], "title": [f"tea {n}" for n in range(12)]}
    parquet.write_table(pa.table(named), folder / "items.parquet")


def test_a_row_is_measured_once_and_its_table_takes_the_place_of_the_old_one(
    measure: Measure,
) -> None:
    write_tables(measure.place / "data" / "tea")
    data = ("--data", str(measure.place / "data"))
    page = measure(*data)
    assert page[:5] == ["Said by hand.", "", MARK, "", "## Three shoppers"]
    assert "old tables" not in page
    assert "3 questions of 3 users among 12 items" in page[6]
    # Each target is level with one other item and behind none that its shopper may still take:
    # rank 1.5, so NDCG 1 / log2(2.5) and a reciprocal rank of 2/3.
    (row,) = (line for line in page if line.startswith("| popularity"))
    cells = [cell.split(" ±")[0].strip() for cell in row.split("|")[1:-1]]
    assert cells[:5] == ["popularity", "1.0000", "0.7565", "1.0000", "0.6667"]
    assert page[-1].startswith("`popularity` above `random`, 95 % over users: hr@10 +")

    kept = (measure.place / "KEPT" / "tiny.json").read_text()
    told = json.loads(kept)
    assert (told["queries"], told["options"]["protocol"]) == (3, "leave-one-out")
    assert told["data"]["counts"]["events"] == 9
    assert "log" not in told["config"], "where it was says nothing on another machine"
    assert measure(*data) == page
    assert (measure.place / "KEPT" / "tiny.json").read_text() == kept, "it was not measured again"


def test_without_its_data_a_row_is_left_out_and_named(
    measure: Measure, capsys: pytest.CaptureFixture[str]
) -> None:
    page = measure()
    assert page[-1] == "No row has been measured yet."
    assert "tiny: needs --data DIR with tea" in capsys.readouterr().err


CLICKS = {
    "purchase": {
        "rows": 1200,
        "auc": {
            "hybrid": {"value": 0.9, "error": 0.01},
            "item-prior": {"value": 0.8, "error": 0.02},
            "difference": {"value": 0.1, "low": 0.05, "high": 0.15},
        },
        "user_auc": {"hybrid": 0.88, "item-prior": 0.79},
        "log_loss": {"hybrid": 0.25, "item-prior": 0.5},
        "ece": {"hybrid": 0.01, "item-prior": 0.02},
    }
}


def test_clicks_are_counted_as_shown_items_and_a_changed_tree_is_told_of() -> None:
    row = {"name": "shown", "title": "Shown", "protocol": "global-time"}
    report = {"commit": "0123456789ab-dirty", "seeds": [0], "items": 12, "duration_s": 2.0}
    page = "\n".join(sections([(row, report | {"clicks": CLICKS})])).splitlines()
    assert "commit 0123456789ab-dirty, seeds 0, the clicks on 1,200 shown items" in page[2]
    assert page[6].startswith("| model | AUC |")
    assert page[8:10] == [
        "| hybrid | 0.9000 ± 0.0100 |  | 0.8800 | 0.2500 | 0.0100 |",
        "| item-prior | 0.8000 ± 0.0200 | +0.1000 [+0.0500, +0.1500] | 0.7900 | 0.5000 | 0.0200 |",
    ]


def test_what_newcomers_are_told_stands_below_a_replay() -> None:
    row = {"name": "live", "title": "Live", "protocol": "prequential"}
    found = {"hybrid": {"hr@10": {"value": 0.25, "error": 0.01}}}
    shares = {"0": {"queries": 1200, "recall": found}, "1-5": {"queries": 0}}
    answers = {"recall": {"hybrid": {}}, "by_times_seen": {}, "queries": 9, "users": 4}
    told = {"commit": "0123456789ab", "seeds": [0], "tested_windows": 3, "duration_s": 2.0}
    report = told | answers | {"by_past": shares, "clicks": CLICKS}
    page = "\n".join(sections([(row, report)])).splitlines()
    at = page.index("| model | 0 (1,200) | 1-5 (0) |")
    assert page[at + 2] == "| hybrid | 0.2500 ± 0.0100 |  |"
    assert at < page.index("1,200 shown items; `purchase`.")
    split = "\n".join(sections([(row | {"protocol": "leave-one-out"}, report)]))
    assert "events of the user" not in split


def test_what_two_tasks_have_above_each_twin_is_told() -> None:
    row = {"name": "live", "title": "Live", "protocol": "global-time"}
    twin = {"above": {"hr@10": {"value": 0.02, "low": 0.01, "high": 0.03}}, "clicks": CLICKS}
    report = {"commit": "0123456789ab", "seeds": [0], "duration_s": 2.0, "model": "hybrid"}
    told = report | {"clicks": CLICKS, "twins": {"click-only": twin}}
    (line,) = (line for line in "\n".join(sections([(row, told)])).splitlines() if "twin" in line)
    assert line == (
        "`hybrid` above its twin `click-only`, 95 % over users: hr@10 +0.0200 [+0.0100, +0.0300], "
        "AUC of `purchase` +0.1000 [+0.0500, +0.1500]."
    )
