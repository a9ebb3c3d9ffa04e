"""What loading says while it runs and when it is done, alike for every data set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ray_rec.events.schema import Record
from ray_rec.log.base import EventLog

Progress = Callable[[str, int, int], None]
"""Told (topic, rows done, rows in all) after each batch; the total of a topic may still grow."""

BATCH_RECORDS = 20_000


@dataclass(frozen=True)
class LoadReport:
    """What was appended: records by topic, and the event times (ms) that they span.

    `skipped` counts rows that went to `dead-letter` because they are no valid record.
    """

    counts: dict[str, int]
    first_ms: int | None
    last_ms: int | None
    skipped: int = 0


@dataclass
class Appender:
    """Appends in batches, tells progress and remembers what a `LoadReport` says."""

    log: EventLog
    progress: Progress | None = None
    counts: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)

    def expect(self, topic: str, num_records: int) -> None:
        """Announce records, so that progress knows its end."""
        self.totals[topic] = self.totals.get(topic, 0) + num_records

    def append(self, topic: str, records: Sequence[Record]) -> None:
        """Append records that `expect` announced, in order."""
        for start in range(0, len(records), BATCH_RECORDS):
            batch = records[start : start + BATCH_RECORDS]
            self.log.append(topic, batch)
            self.counts[topic] = self.counts.get(topic, 0) + len(batch)
            if self.progress is not None:
                self.progress(topic, self.counts[topic], self.totals[topic])
