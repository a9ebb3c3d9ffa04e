"""Click models side by side: fit on what was shown until a moment, judged on what came later."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ray_rec.errors import DataError
from ray_rec.evaluation.asking.splits import TimeOptions
from ray_rec.evaluation.clicks.features import Table, click_table
from ray_rec.evaluation.clicks.importance import Said, auc_drops, importance
from ray_rec.evaluation.clicks.models import CLICK_MODELS, ClickModel
from ray_rec.evaluation.clicks.shown import Shown
from ray_rec.evaluation.metrics.bootstrap import auc_by_user
from ray_rec.evaluation.metrics.ranking import auc, calibration, log_loss, user_auc
from ray_rec.evaluation.reports.summary import PRIOR
from ray_rec.features.arrays import AnyArray, Bool

RARE = 20
"""Items shown fewer times before, with known outcome, are judged on their own as well."""

Plain = dict[str, Any]


def judge_clicks(
    shown: Shown,
    outcomes: Sequence[str],
    models: Sequence[str],
    time: TimeOptions,
    seed: int,
    select: Sequence[str] = (),
    explain: bool = False,
    said: Mapping[str, Said] | None = None,
) -> Plain:
    """Return, by outcome that both happened and did not on both sides, how well it is predicted.

    Args:
        shown: what was shown; learned is what had a known outcome at the moment that `time` makes
            of its times, asked is what was shown then or later.
        outcomes: names of the O outcomes.
        models: out of `CLICK_MODELS`; the item prior always stands beside them.
        time: says which moment.
        seed: of models and resamples.
        select: names of the features that models learn from, the item prior apart; none: all.
        explain: tell the permutation importance of each feature for the first model as well.
        said: what others say of what is asked about, who come first, by name; importance is told of
            the first of them that was also asked without its numbers.

    Raises:
        DataError: no outcome has both.
        ConfigError: there is no such feature.
    """
    begin_ms = time.begin_ms(shown.ts)
    learned, asked = shown.ts + shown.known_ms < begin_ms, shown.ts >= begin_ms
    first, *others = [name for name in models if name != PRIOR] or [PRIOR]
    names = list(dict.fromkeys((first, PRIOR, *others)))
    out: Plain = {}
    for place, outcome in enumerate(outcomes):
        labels = shown.labels[:, place]
        if not (has_both(labels[learned]) and has_both(labels[asked])):
            continue
        table = click_table(shown, place, learned)
        tables = {name: table if name == PRIOR else table.only(select) for name in names}
        fitted = {n: fit(n, tables[n], labels, learned, seed) for n in names}
        fits = {n: fitted[n].predict(tables[n].values[asked]) for n in names}
        made = {name: found.whole[asked, place] for name, found in (said or {}).items()}
        made |= fits
        made = {n: made[n] for n in dict.fromkeys((next(iter(made)), PRIOR, *made))}
        rare = table.times_shown[asked] < RARE
        out[outcome] = _described(made, labels[asked], shown.user[asked], rare, seed)
        without_some = [(n, found) for n, found in (said or {}).items() if found.without]
        if explain and without_some:
            leader, found = without_some[0]
            without = {name: values[asked, place] for name, values in found.without.items()}
            drops = auc_drops(labels[asked], made[leader], without)
            out[outcome]["importance"] = {"model": leader, "auc_drop": drops}
        elif explain:
            known, values = tables[first].names, tables[first].values[asked]
            drops = importance(fitted[first], known, values, labels[asked], seed)
            out[outcome]["importance"] = {"model": first, "auc_drop": drops}
    if not out:
        raise DataError(
            f"no clicks to test: of {learned.sum()} learned and {asked.sum()} later shown items, "
            f"none of {list(outcomes)} happened to some and not to others on both sides; take a "
            "longer stretch"
        )
    return out


def over_seeds(found: Sequence[Plain]) -> Plain:
    """Return one report of several seeds: means of all numbers, curves and counts of the first.

    Errors and intervals are over users; the mean of each seed's tells how sure one training is.

    >>> over_seeds([{"rows": 9, "auc": {"value": 0.5}}, {"rows": 9, "auc": {"value": 1.0}}])
    {'rows': 9, 'auc': {'value': 0.75}}
    """
    return {key: _over([one[key] for one in found]) for key in found[0]}


def _over(values: Sequence[Any]) -> Any:
    if isinstance(values[0], dict):
        return over_seeds(values)
    return float(np.mean(values)) if isinstance(values[0], float) else values[0]


def fit(name: str, table: Table, labels: AnyArray, learned: Bool, seed: int) -> ClickModel:
    """Return a model of `CLICK_MODELS` that has learned the `learned` rows of a table."""
    model = CLICK_MODELS[name](seed)
    model.fit(table.names, table.values[learned], labels[learned])
    return model


def _described(
    by_name: dict[str, AnyArray], labels: AnyArray, user: AnyArray, rare: Bool, seed: int
) -> Plain:
    """Return the numbers of an outcome, in the form of a backtest's.

    The first is set against the second, in `difference`, and against each of the others.
    """
    names, first = list(by_name), next(iter(by_name.values()))
    above = ("difference",) if len(names) > 1 else ()
    made = np.stack(list(by_name.values()), axis=1)
    areas = zip((*names, *above), auc_by_user(labels, made, user, seed), strict=True)
    rivals = {n: np.stack([first, by_name[n]], axis=1) for n in names[2:]}
    return {
        "rows": len(labels),
        "positives": int(labels.sum()),
        "auc": {name: estimate._asdict() for name, estimate in areas},
        "above": {
            name: auc_by_user(labels, pair, user, seed)[-1]._asdict()
            for name, pair in rivals.items()
        },
        "user_auc": {name: user_auc(labels, p, user) for name, p in by_name.items()},
        "log_loss": {name: log_loss(labels, p) for name, p in by_name.items()},
        "ece": {name: calibration(labels, p).error for name, p in by_name.items()},
        "calibration": {
            name: {key: values.tolist() for key, values in calibration(labels, p)._asdict().items()}
            for name, p in by_name.items()
        },
        "rare": {
            "rows": int(rare.sum()),
            "auc": {name: auc(labels[rare], p[rare]) for name, p in by_name.items()},
        },
    }


def has_both(labels: AnyArray) -> bool:
    """Return whether some labels are 0 and others 1."""
    return bool(len(labels)) and labels.min() < labels.max()
