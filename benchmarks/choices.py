"""What one choice otherwise comes to, prequential on the demo's eight weeks of Complete Journey.

    python -m benchmarks.choices [--seeds 0 1] [--again]

The model of serve/demo.toml and those of choices.toml go through the log in windows of 2,000
records, asked before they learn. Answers of a seed by this code and these choices are kept in
var/quality/choices.
"""

import argparse
import json
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from benchmarks._pupils import (
    Plain,
    answers,
    commits,
    compared_to,
    kept_runs,
    measure,
    ranked_by,
    table,
)
from benchmarks._results import RESULTS, ROOT, lasting, machine, put_tables
from benchmarks.quality import fill, key_of
from ray_rec.config import RunConfig, load_config
from ray_rec.evaluation.asking.stretch import ends, starts
from ray_rec.evaluation.backtest import TOPICS, read_window
from ray_rec.evaluation.prequential import Options, Prequential
from ray_rec.evaluation.pupil import Pupil
from ray_rec.log.base import open_log
from ray_rec.log.cut import cut

FOLDER = ROOT / "var" / "quality"
KEPT = FOLDER / "choices"
RESULT = RESULTS / "quality" / "choices.json"
WEEKS, RECORDS, QUERIES = (46, 53), 2_000, 200
"""What is replayed, in windows of so many records; of each so many baskets and exposures."""
DEMO = "demo"


def main() -> int:
    """Run the seeds that are missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=(0, 1))
    parser.add_argument("--again", action="store_true", help="run what was run too")
    given = parser.parse_args()
    plan = tomllib.loads((ROOT / "benchmarks" / "choices.toml").read_text())
    told = plan | {"weeks": WEEKS, "records": RECORDS, "queries": QUERIES}
    for seed in given.seeds:
        replayed = partial(_replayed, plan["choices"], seed)
        measure(KEPT / f"{seed}.npz", key_of(told, _config(seed)), replayed, given.again)
    RESULT.write_text(json.dumps(_summary() | {"plan": told}, indent=1) + "\n")
    put_tables("choices", section(plan["about"]))
    return 0


def _replayed(choices: Mapping[str, Sequence[str]], seed: int) -> Plain:
    """Take all models through the stretch; return what they answered."""
    config, counts = _config(seed), dict.fromkeys((*TOPICS, "dead"), 0)
    torch.set_num_threads(config.training.torch_threads)
    fill({"weeks": WEEKS}, config, None)
    with open_log(config.log) as log:
        run = Prequential(config, Options(max_queries=QUERIES), rankers=())
        for name, changes in choices.items():
            run.beside[name] = Pupil(_config(seed, changes), run.encoder, run.store, QUERIES)
        whole = starts(log, TOPICS, None), ends(log, TOPICS, None)
        for window in cut(log, TOPICS, RECORDS, *whole):
            run.step(window, read_window(log, window, counts))
            sys.stderr.write(f"seed {seed}: window {window.number}\n" * (window.number % 50 == 0))
    return answers({DEMO: run.model, **run.beside})


def _config(seed: int, changes: Sequence[str] = ()) -> RunConfig:
    places = (f"log=sqlite:///{FOLDER}/complete_journey_demo.db", f"state_dir={KEPT}/{seed}")
    changes = (*places, f"learner.seed={seed}", *changes)
    return load_config(ROOT / "serve" / "demo.toml", changes, environ={})


def _summary() -> Plain:
    """Return the numbers of the answers that are kept, as JSON types."""
    kept = kept_runs(KEPT)
    runs = [*kept.values()]
    names = runs[0]["names"].tolist()
    return {
        "benchmark": "choices",
        "seeds": [*kept],
        "queries": len(runs[0]["user"]),
        "users": len(np.unique(runs[0]["user"])),
        "shown": len(runs[0]["shown_user"]),
        "choices": compared_to(runs, ranked_by(runs, names), names, DEMO),
        "commit": commits(runs),
        "config": lasting(_config(0).to_dict()),
        "machine": machine(),
    }


def section(about: str) -> Iterator[str]:
    """Yield the part of the results page that tells of it."""
    found = json.loads(RESULT.read_text())
    yield "## Complete Journey, eight weeks, one choice otherwise\n"
    yield (
        f"`python -m benchmarks.choices --seeds {' '.join(map(str, found['seeds']))}`, commit "
        f"{found['commit']}, {found['queries']:,} baskets of {found['users']:,} users, "
        f"{found['shown']:,} shown items.\n"
    )
    yield about.strip() + "\n"
    yield from table(found["choices"], f"above {DEMO}", "choice")
    yield ""


if __name__ == "__main__":
    sys.exit(main())
