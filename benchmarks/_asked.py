"""What benchmarks of Amazon Beauty ask by rows, and how the answers of a row are kept."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ray_rec.config import RunConfig
from ray_rec.evaluation.asking.ledger import Ranked
from ray_rec.evaluation.asking.splits import Split, TimeOptions, global_time
from ray_rec.evaluation.asking.tables import Events
from ray_rec.features.arrays import AnyArray
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.text import TextStore, Vectors

_ASKED, _OWN = ("user", "target_query", "seen"), "own."
_LEARNED = 0.9
"""Share of the events before the test; of these, as many again are before the earlier stretch."""

Plain = dict[str, Any]


def arguments(about: str | None) -> argparse.Namespace:
    """Read the command line of a benchmark of several rows."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--data", type=Path, help="folder of the sets that are no package")
    parser.add_argument("--only", nargs="*", default=(), help="names of rows")
    parser.add_argument("--earlier", action="store_true", help="ask before the test period")
    parser.add_argument("--write", action="store_true", help="only write docs/results.md")
    return parser.parse_args()


def options(earlier: bool) -> TimeOptions:
    """Return where the test begins, or among what is before the test the earlier stretch."""
    learned = TimeOptions(_LEARNED, same_time=True)
    return replace(learned, quantile=2 - 1 / _LEARNED) if earlier else learned


def before_test(events: Events, earlier: bool) -> Events:
    """Return all events, or for questions of an earlier stretch those before the test."""
    return events.only(events.ts < options(False).begin_ms(events.ts)) if earlier else events


def by_time(events: Events, earlier: bool) -> Split:
    """Return the test, or the questions of the same kind before it that know nothing of it."""
    return global_time(before_test(events, earlier), options(earlier))


def pretrained(config: RunConfig, texts: Sequence[str]) -> Vectors:
    """Return the vectors of the pretrained encoder; zeros where a text is empty."""
    encoder = TextEncoder(replace(config.encoder, policy="frozen"))
    raw = TextStore(f"{config.state_dir}/texts", encoder.digest).vectors(texts, encoder.encode)
    raw[np.array([not text for text in texts])] = 0.0
    return raw


def keep(path: Path, answers: Ranked, how: Mapping[str, Any], **more: AnyArray) -> None:
    """Write the ranks by name, what was asked, how it came about, and columns of one's own."""
    asked = {name: getattr(answers, name) for name in _ASKED}
    columns = {f"{_OWN}{name}": values for name, values in more.items()} | answers.ranks | asked
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=False, how=np.array(json.dumps(how)), **columns)


def kept_answers(path: Path) -> tuple[Ranked, Plain, dict[str, AnyArray]]:
    """Return what was kept: the answers, how they came about, and the columns of one's own."""
    with np.load(path) as file:
        columns = {name: file[name] for name in file.files}
    how = json.loads(str(columns.pop("how")))
    user, query, seen = (columns.pop(name) for name in _ASKED)
    own = {name for name in columns if name.startswith(_OWN)}
    more = {name.removeprefix(_OWN): columns.pop(name) for name in own}
    return Ranked(np.zeros_like(user), user, query, seen, seen, columns), how, more
