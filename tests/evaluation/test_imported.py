"""Tables of one's own, imported and evaluated by the two commands that a user types."""

import csv
from pathlib import Path

import msgspec
import pytest

from tests.model.encoders import make_encoder
from tests.typed import ray_rec

USERS, EACH, DAY_MS = 12, 6, 86_400_000
KINDS = ["tea", "bread", "soap"]
MODELS = {
    "prequential": ("hybrid", "recency-popularity", "popularity"),
    "global-time": ("hybrid", "sasrec", "text-knn", "recency-popularity", "popularity"),
    "leave-one-out": ("hybrid", "item-knn", "popularity"),
    "item-holdout": ("hybrid", "text-knn", "popularity"),
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop of three kinds of things; each of twelve people takes six of one kind, day by day."""
    folder = tmp_path_factory.mktemp("imported")
    make_encoder(folder / "encoder", "bert")
    with (folder / "items.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["item_id", "title", "category", "brand"])
        rows.writerows(
            [f"{kind}-{n}", f"{kind} {n}", kind, "farm"] for kind in KINDS for n in range(8)
        )
    with (folder / "events.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["user_id", "item_id", "event_type", "ts"])
        for n in range(EACH):
            for user in range(USERS):
                item = f"{KINDS[user % 3]}-{(user + n) % 8}"
                rows.writerow([f"u{user}", item, "purchase", 1_700_000_000_000 + n * DAY_MS + user])
    return folder


@pytest.mark.parametrize("protocol", MODELS)
def test_each_protocol_judges_models_on_an_imported_table(
    protocol: str,
    tables: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tables)
    log = f"sqlite:///{protocol}.db"
    loaded = ray_rec(capsys, "data", "import", "events.csv", "items.csv", "--set", f"log={log}")
    assert loaded["counts"] == {"items": 24, "events": USERS * EACH}
    small = (
        "encoder.model=encoder",
        "encoder.max_tokens=8",
        "model.dim=16",
        "model.text_dim=16",
        "model.tower_dim=16",
    )
    windows = ("training.window_records=12", "features.lateness_ms=0", "state_dir=state")
    told = ray_rec(
        capsys,
        *("evaluate", "--log", log, "--protocol", protocol, "--out", protocol),
        *("--models", ",".join(MODELS[protocol])),
        *(part for change in (*small, *windows) for part in ("--set", change)),
    )
    assert set(told["recall"]) == set(MODELS[protocol])
    report = msgspec.json.decode(Path(told["json"]).read_bytes())
    # A replay asks all that comes after the first window with events, leave-one-out one of each
    # user, and a split by time what comes after the .9 quantile, the 64th of 72 events.
    taught = next((w["counts"]["tokens"] for w in report.get("windows", ()) if w["until_ms"]), 0)
    asked = {"prequential": USERS * EACH - taught, "leave-one-out": USERS}.get(protocol, 8)
    assert report["queries"] == asked
    assert report["data"]["counts"]["events"] == USERS * EACH
    page = Path(told["html"]).read_text()
    assert all(f">{model}<" in page for model in MODELS[protocol])
