"""What is measured of a stream: the kind, the labels and the meaning of each measure.

A measurement is a number under a path, the measure's name and the value of each of its labels:
`lag_records/events/0`, `loss/recall`. What a window tells beside these stands under `other/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

OTHER = "other"


@dataclass(frozen=True)
class Measure:
    """A row of the table; counters sum up what happened since the run began."""

    kind: Literal["counter", "gauge"]
    meaning: str
    labels: tuple[str, ...] = ()
    prefix: str = "ray_rec_stream_"


_SERVED = "ray_rec_"
"""Prefix of what a replica measures too, under the same name."""

MEASURES: dict[str, Measure] = {
    "window": Measure("gauge", "Number of the newest window learned"),
    "windows": Measure("counter", "Windows learned, each repetition included"),
    "windows_repeated": Measure("counter", "Windows learned again after a failure"),
    "window_seconds": Measure("gauge", "Mean time of the last minute's windows", ("stage",)),
    "records": Measure("counter", "Records taken off the log, of all topics"),
    "events": Measure("counter", "Events among them"),
    "exposures": Measure("counter", "Exposures among them"),
    "examples": Measure("counter", "Examples made of these"),
    "events_per_second": Measure("gauge", "Events learned a second, over the last minute"),
    "examples_per_second": Measure("gauge", "Examples learned a second, over the last minute"),
    "duplicates": Measure("counter", "Records that had been seen before", ("topic",)),
    "late": Measure("counter", "Records older than the watermark", ("topic",)),
    "late_outcomes": Measure("counter", "Outcomes whose exposure had been learned already"),
    "lost": Measure("counter", "Records that retention deleted before they were read"),
    "set_aside": Measure("counter", "Examples never learned, as their window diverged"),
    "dead_letters": Measure("counter", "Records that could not be used", ("reason",)),
    "watermark_seconds": Measure("gauge", "Watermark, as Unix time"),
    "lag_records": Measure("gauge", "Records not yet learned", ("topic", "partition")),
    "loss": Measure("gauge", "Loss before learning, mean of the last minute's windows", ("task",)),
    "auc": Measure("gauge", "AUC before learning, mean of the same", ("task",)),
    "hr_at_10": Measure("gauge", "HR@10 before learning, mean of the same", ("task",)),
    "ndcg_at_10": Measure("gauge", "NDCG@10 before learning, mean of the same", ("task",)),
    "learned_loss": Measure("gauge", "Loss while learning, mean of the same", ("task",)),
    "model_version": Measure("gauge", "Version in service", prefix=_SERVED),
    "model_version_age_seconds": Measure("gauge", "Time since it was published", prefix=_SERVED),
}

_COUNTS = {
    "records": "records",
    "events": "events",
    "exposures": "exposures",
    "examples": "examples",
    "duplicates": "duplicates/events",
    "exposure_duplicates": "duplicates/exposures",
    "late": "late/events",
    "late_exposures": "late/exposures",
    "late_outcomes": "late_outcomes",
    "lost": "lost",
    "set_aside": "set_aside",
}
_MEANS = {
    "recall_loss": "loss/recall",
    "click_loss": "loss/click",
    "auc": "auc/click",
    "hr@10": "hr_at_10/recall",
    "ndcg@10": "ndcg_at_10/recall",
    "learned_recall_loss": "learned_loss/recall",
    "learned_click_loss": "learned_loss/click",
}
_DEAD, _SECONDS = "dead_", "_s"


@dataclass(frozen=True)
class Measured:
    """What one window told: to be added up, to be averaged, and to be shown as it is."""

    counts: dict[str, float]
    means: dict[str, float]
    values: dict[str, float]


def measured(window: Mapping[str, Any]) -> Measured:
    """Sort a window's flat metrics into measurements; what is no number is left out.

    >>> measured({"events": 3, "dead_not_json": 1, "read_s": 0.5, "auc": 0.7, "evicted": 0})
    Measured(counts={'events': 3.0, 'dead_letters/not_json': 1.0}, \
means={'window_seconds/read': 0.5, 'auc/click': 0.7}, values={'other/evicted': 0.0})
    """
    out = Measured({}, {}, {})
    for key, number in window.items():
        if not isinstance(number, int | float):
            continue
        value = float(number)
        if key in _COUNTS:
            out.counts[_COUNTS[key]] = value
        elif key.startswith(_DEAD):
            out.counts[f"dead_letters/{key.removeprefix(_DEAD)}"] = value
        elif key in _MEANS:
            out.means[_MEANS[key]] = value
        elif key.endswith(_SECONDS):
            out.means[f"window_seconds/{key.removesuffix(_SECONDS)}"] = value
        elif key == "window":
            out.values["window"] = value
        elif key == "watermark_ms":
            out.values["watermark_seconds"] = value / 1000
        else:
            out.values[f"{OTHER}/{key}"] = value
    return out


def by_label(metrics: Mapping[str, float], measure: str) -> dict[str, float]:
    """Return the measurements of one measure by the value of its label.

    >>> by_label({"loss/recall": 5.0, "loss/click": 0.2, "window": 7.0}, "loss")
    {'recall': 5.0, 'click': 0.2}
    """
    start = f"{measure}/"
    return {path.removeprefix(start): v for path, v in metrics.items() if path.startswith(start)}
