"""An independent check: RecTools judges our lists, and its own models stand beside ours.

    python -m benchmarks.rectools_check [--log URL] [--questions 2000]    # Amazon Beauty

RecTools needs an older numpy, so it gets an environment of its own in var/rectools, installed the
first time; where it cannot be, that is said and nothing else is done. The last event of some users
is asked (leave one out), the only protocol in which a question is a user, as RecTools has it. A
list has no half ranks: equal scores are put in the catalogue's order before either side judges.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

from benchmarks._results import ROOT, finish
from ray_rec.config import RunConfig, load_config
from ray_rec.errors import LogError
from ray_rec.evaluation.asking.ledger import Ranked
from ray_rec.evaluation.asking.logged import read_log
from ray_rec.evaluation.asking.questions import Interactions, Queries
from ray_rec.evaluation.asking.splits import Split, leave_one_out
from ray_rec.evaluation.metrics.catalogue import coverage, novelty, popularity_bias
from ray_rec.evaluation.metrics.ranking import ranking
from ray_rec.evaluation.offline import judge
from ray_rec.evaluation.rankers.baselines import ItemKnn, Popularity, Ranker
from ray_rec.evaluation.rankers.neighbours import UserKnn
from ray_rec.features.arrays import AnyArray, Float64
from ray_rec.log.base import open_log

FOLDER, CONFIG = ROOT / "var" / "rectools", ROOT / "benchmarks" / "configs" / "beauty.toml"
WANTED = "rectools>=0.12,<1"
K = 10
TOLERANCE = 1e-9

Numbers = dict[str, dict[str, float]]


def main() -> int:
    """Return 1 where both sides differ; 0 else, also where RecTools or the log is missing."""
    given = _arguments()
    python = install(FOLDER / "env")
    if python is None:
        return 0
    try:
        split, ranked = ask(load_config(CONFIG, (f"log={given.log}",)), given.questions)
    except LogError as error:
        _skip(f"no log to ask from: {error}")
        return 0
    export(split, ranked, FOLDER)
    told = subprocess.run(
        [python, ROOT / "benchmarks" / "_rectools.py", FOLDER], stdout=subprocess.PIPE, check=True
    )
    theirs = json.loads(told.stdout)
    ours = {name: numbers(split, ranked, name) for name in ranked.ranks}
    off = apart(ours, theirs["judged"])
    result = {
        "questions": len(ranked.user),
        "ours": ours,
        "rectools": theirs,
        "apart": f"{off:.0e}",
    }
    finish("rectools", result, {"protocol": "leave-one-out", "wanted": WANTED})
    return int(off > TOLERANCE)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    usual = f"sqlite:///{ROOT / 'var' / 'quality' / 'amazon14_beauty.db'}"
    parser.add_argument("--log", default=usual, help="of Amazon Beauty")
    parser.add_argument("--questions", type=int, default=2000, help="at most so many users")
    return parser.parse_args()


def _skip(why: str) -> None:
    sys.stderr.write(f"SKIPPED LOUDLY: the check against RecTools. {why}\n")


def install(env: Path) -> Path | None:
    """Return the Python of an environment with RecTools; None, having said so, without one."""
    python = env / "bin" / "python"
    has = [str(python), "-c", "import rectools"]
    if python.exists() and not subprocess.run(has, capture_output=True, check=False).returncode:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", env], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, WANTED], capture_output=True, text=True, check=False)
    if done.returncode:
        _skip(f"pip cannot install {WANTED}: {done.stderr.strip().splitlines()[-1]}")
        return None
    return python


class Ordered:
    """A ranker without equal scores: equals come in the catalogue's order."""

    def __init__(self, ranker: Ranker) -> None:
        self._ranker, self.name = ranker, ranker.name

    def observe(self, done: Interactions) -> None:
        """Learn as the ranker does."""
        self._ranker.observe(done)

    def scores(self, queries: Queries) -> AnyArray:
        """Return float32 [Q, N]: minus the place in the ranker's order, exact below 2^24 items."""
        order = np.argsort(-self._ranker.scores(queries), axis=1, kind="stable")
        out = np.empty(order.shape, np.float32)
        np.put_along_axis(out, order, -np.arange(order.shape[1], dtype=np.float32)[None], axis=1)
        return out


def ask(config: RunConfig, most: int) -> tuple[Split, Ranked]:
    """Ask quick models for the last event of at most so many users.

    Raises:
        LogError: the log does not answer, or lacks topics.
    """
    with open_log(config.log) as log:
        events = read_log(log, config).events
    split = leave_one_out(events).without_repeats().sampled(most)
    return split, judge(split, [Ordered(r) for r in (Popularity(), ItemKnn(), UserKnn())])


def export(split: Split, ranked: Ranked, folder: Path) -> None:
    """Write what RecTools reads: learned.csv, asked.csv, lists.csv and about.json."""
    learned, queries = split.training(), split.queries()
    when = pa.array(learned.ts, pa.timestamp("ms"))
    ones = np.ones(len(learned.user), np.int64)
    users, items = learned.user, learned.item
    done: dict[str, Any] = {"user_id": users, "item_id": items, "weight": ones, "datetime": when}
    csv.write_csv(pa.table(done), folder / "learned.csv")
    asked: dict[str, Any] = {"user_id": ranked.user, "item_id": queries.target_item}
    csv.write_csv(pa.table(asked), folder / "asked.csv")
    lists = [_listed(name, ranked) for name in ranked.lists]
    csv.write_csv(pa.concat_tables(lists), folder / "lists.csv")
    (folder / "about.json").write_text(json.dumps({"items": queries.num_items}))


def _listed(name: str, ranked: Ranked) -> pa.Table:
    items = ranked.lists[name]
    num, k = items.shape
    columns: dict[str, Any] = {
        "model": [name] * (num * k),
        "user_id": np.repeat(ranked.user, k),
        "item_id": items.ravel(),
        "rank": np.tile(np.arange(1, k + 1), num),
    }
    return pa.table(columns)


def numbers(split: Split, ranked: Ranked, name: str) -> dict[str, float]:
    """Return our numbers for a model; `ndcg_of_ten` and `mrr` as RecTools defines them.

    Its NDCG is against ten hits unless told otherwise, though there is but one target; its
    reciprocal rank is 0 below the list, where ours goes on.
    """
    counts = np.bincount(split.events.item[split.train], minlength=len(split.events.item_ids))
    ranks, items = ranked.ranks[name], ranked.lists[name]
    found = ranking(ranks, ranked.target_query, len(ranked.user), K)
    shown = np.bincount(items.ravel(), minlength=len(counts))
    above: Float64 = np.where(found.hit > 0, found.reciprocal_rank, 0.0)
    ideal = float((1 / np.log2(1 + np.arange(1, K + 1))).sum())
    return {
        "hr": float(found.hit.mean()),
        "ndcg": float(found.ndcg.mean()),
        "ndcg_of_ten": float(found.ndcg.mean()) / ideal,
        "mrr": float(above.mean()),
        "coverage": coverage(shown),
        "popularity": popularity_bias(items, ranked.seen, counts) * float(ranked.seen.mean()),
        "novelty": float(novelty(items, counts).mean()),
    }


def apart(ours: Numbers, theirs: Numbers) -> float:
    """Return the largest difference between numbers of the same models, relative above 1."""
    return max(
        abs(theirs[model][name] - value) / max(1.0, abs(value))
        for model, found in ours.items()
        for name, value in found.items()
    )


if __name__ == "__main__":
    sys.exit(main())
