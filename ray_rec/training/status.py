"""What an operator wants to know in one screen, whether or not a stream is running.

The log and the registry say how things stand now; what only a running stream knows is what it told
last (`last.json`), or what it knew when it made the newest version.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from ray_rec.config import RunConfig
from ray_rec.log.base import Offsets, open_log
from ray_rec.log.standing import count_letters, lag, reasons_of_letters
from ray_rec.registry import Manifest, Registry
from ray_rec.tracking.last import Recorded, last_recorded
from ray_rec.tracking.measures import by_label, measured
from ray_rec.training.checkpoint import Checkpoints
from ray_rec.training.planner import LEARNED_TOPICS
from ray_rec.training.recorder import newest_version


@dataclass(frozen=True)
class LogStatus:
    """How the log stands.

    Attributes:
        lag: records written and not yet learned by the newest version, by topic and partition.
        dead_letters: records in the dead-letter topic.
        reasons: of the newest thousand of them, the most frequent first.
    """

    lag: dict[str, Offsets]
    dead_letters: int
    reasons: dict[str, int]


@dataclass(frozen=True)
class StreamStatus:
    """What the stream told last.

    Attributes:
        age_s: seconds since it did; a running stream tells something every second.
        window: the newest window learned.
        watermark_ms: event time up to which all is in, None when it was not told.
        watermark_behind_s: how far that lies behind now.
        events_per_second: over the minute before it was told.
        examples_per_second: the same of examples.
        stage_s: mean time of that minute's windows by stage.
        duplicates: records seen before by topic, since the run began.
        late: records older than the watermark by topic, since the run began.
        late_outcomes: outcomes that came after their exposure was learned, since the run began.
        lost: records that retention deleted before they were read, since the run began.
        set_aside: examples never learned, as their window diverged, since the run began.
    """

    age_s: float
    window: int
    watermark_ms: int | None
    watermark_behind_s: float | None
    events_per_second: float | None
    examples_per_second: float | None
    stage_s: dict[str, float]
    duplicates: dict[str, int]
    late: dict[str, int]
    late_outcomes: int
    lost: int
    set_aside: int


@dataclass(frozen=True)
class ModelStatus:
    """The versions.

    Attributes:
        version: the one in service, None before the first.
        held: whether a rollback holds it.
        age_s: seconds since it was made.
        newest: the newest published, in service or not.
        newest_passed: what the gate decided about it.
        newest_reason: and why.
        items: how many it knows.
        quality: loss, auc, hr_at_10 and ndcg_at_10 before learning (prequential), by task.
    """

    version: int | None
    held: bool
    age_s: float | None
    newest: int | None
    newest_passed: bool | None
    newest_reason: str
    items: int
    quality: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Status:
    """All of it; `stream` is None before a first window was learned.

    `checkpoint` is the window that a restart goes on with, None before the first checkpoint.
    """

    log: LogStatus
    stream: StreamStatus | None
    model: ModelStatus
    checkpoint: int | None


_QUALITY = ("loss", "auc", "hr_at_10", "ndcg_at_10")


def status(config: RunConfig) -> Status:
    """Read the status.

    Raises:
        RegistryError: there is no registry, or it cannot be read.
        LogError: the log does not answer or lacks topics.
        StateError: what was recorded last is damaged.
    """
    registry = Registry(config.registry)
    newest = newest_version(registry)
    told = _told(last_recorded(config.state_dir), newest)
    return Status(
        log=_log_status(config.log, newest.offsets if newest else {}),
        stream=None if told is None else _stream_status(told),
        model=_model_status(registry, newest, told.metrics if told else {}),
        checkpoint=max(Checkpoints.of(config).numbers(), default=None),
    )


def _told(recorded: Recorded | None, newest: Manifest | None) -> Recorded | None:
    """What the stream told last, above what it knew when it made the newest version."""
    if newest is None:
        return recorded
    window = measured(newest.metrics)
    known = {**window.means, **window.values}
    if recorded is None:
        return Recorded(newest.created_at, newest.windows[1], known)
    return Recorded(recorded.at_ms, recorded.window, {**known, **recorded.metrics})


def _log_status(url: str, learned: Mapping[str, Mapping[int, int]]) -> LogStatus:
    with open_log(url) as log:
        return LogStatus(
            lag(log, LEARNED_TOPICS, learned), count_letters(log), reasons_of_letters(log)
        )


def _stream_status(told: Recorded) -> StreamStatus:
    metrics, now_s = told.metrics, time.time()
    watermark_s = metrics.get("watermark_seconds")
    return StreamStatus(
        age_s=now_s - told.at_ms / 1000,
        window=told.window,
        watermark_ms=None if watermark_s is None else round(watermark_s * 1000),
        watermark_behind_s=None if watermark_s is None else now_s - watermark_s,
        events_per_second=metrics.get("events_per_second"),
        examples_per_second=metrics.get("examples_per_second"),
        stage_s=by_label(metrics, "window_seconds"),
        duplicates={t: int(n) for t, n in by_label(metrics, "duplicates").items()},
        late={t: int(n) for t, n in by_label(metrics, "late").items()},
        late_outcomes=int(metrics.get("late_outcomes", 0)),
        lost=int(metrics.get("lost", 0)),
        set_aside=int(metrics.get("set_aside", 0)),
    )


def _model_status(
    registry: Registry, newest: Manifest | None, metrics: Mapping[str, float]
) -> ModelStatus:
    current = registry.current()
    serving = registry.manifest(current.version) if current else None
    quality: dict[str, dict[str, float]] = {}
    for measure in _QUALITY:
        for task, value in by_label(metrics, measure).items():
            quality.setdefault(task, {})[measure] = value
    return ModelStatus(
        version=current.version if current else None,
        held=bool(current and current.held),
        age_s=time.time() - serving.created_at / 1000 if serving else None,
        newest=newest.version if newest else None,
        newest_passed=newest.gate.passed if newest else None,
        newest_reason=newest.gate.reason if newest else "",
        items=newest.num_items if newest else 0,
        quality=quality,
    )
