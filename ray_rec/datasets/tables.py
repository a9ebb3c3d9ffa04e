"""Tables of one's own to the log: columns named as the fields of records, whatever the format.

Every row becomes a record or is reported with file, row and reason. By default one bad row keeps
the whole import from being made; `skip_bad` sends bad rows to `dead-letter` instead.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from ray_rec.datasets.conversion import to_event, to_exposure, to_item
from ray_rec.datasets.readers import Row, read_rows
from ray_rec.datasets.report import Appender, LoadReport, Progress
from ray_rec.errors import DataError, InvalidRecord
from ray_rec.events.parse import encode, key_of
from ray_rec.events.schema import (
    DEAD_LETTER,
    EVENTS,
    EXPOSURES,
    ITEMS,
    DeadLetter,
    Event,
    Exposure,
    Item,
    Record,
)
from ray_rec.log.base import EventLog

NOT_ON_THE_LOG = -1
"""Partition of dead letters that never were records: their offset is the row in the file."""

_SHOWN = 3

T = TypeVar("T", Event, Item, Exposure)


class BadRow(NamedTuple):
    """A row that is no valid record: where it stands and why."""

    path: Path
    topic: str
    row: Row
    error: InvalidRecord

    def __str__(self) -> str:
        return f"{self.path}, row {self.row.number}: {self.error}"

    def dead_letter(self, now_ms: int) -> Record:
        """Return the row as a dead letter of the topic that it was meant for."""
        letter = DeadLetter(
            topic=self.topic,
            partition=NOT_ON_THE_LOG,
            offset=self.row.number,
            ts=now_ms,
            reason=self.error.reason,
            field=self.error.field,
            value=msgspec.json.encode(self.row.values, enc_hook=str),
        )
        return Record(key_of(DEAD_LETTER, letter), encode(letter), now_ms)


@dataclass
class _Table:
    """The records of a file, and its bad rows."""

    path: Path
    topic: str
    records: list[Record] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)

    def read(self, convert: Callable[[Row], T | None]) -> None:
        """Take each row's record; of rows that are one record together, the first has it."""
        made: list[T] = []
        for row in read_rows(self.path):
            try:
                record = convert(row)
            except InvalidRecord as error:
                self.bad.append(BadRow(self.path, self.topic, row, error))
            else:
                if record is not None:
                    made.append(record)
        made.sort(key=lambda record: record.ts)
        self.records = [Record(key_of(self.topic, r), encode(r), r.ts) for r in made]


def import_tables(
    log: EventLog,
    events_path: str | Path,
    items_path: str | Path | None = None,
    progress: Progress | None = None,
    skip_bad: bool = False,
    exposures_path: str | Path | None = None,
) -> LoadReport:
    """Append the rows of EVENTS, and before them of ITEMS and EXPOSURES, in order of their times.

    Columns are the fields of the records (docs/events.md); ids may be numbers, `ts` may be ms, a
    timestamp or ISO 8601 (UTC when it names no zone), `rating` is read as `value`. Left out:
    `event_id` is made from the row's content, so importing again has no effect; `event_type` is
    "rating" where there is a rating and "view" elsewhere; an item's `ts` is that of the earliest
    event, its `title` empty. Other columns go to an event's `context`. The tables have to fit in
    memory.

    A row of EXPOSURES is one shown item: `user_id`, `item_id`, `ts` and the `propensity` that it
    was shown with. Rows of one `request_id` are one answer, a row without any is one of its own.
    Left out: `position` is the place among its rows, `policy` "imported", `score` and
    `model_version` 0.

    Args:
        log: where to; its standard topics exist.
        events_path: .parquet, .csv, .tsv or .jsonl.
        items_path: the same for items; without it items are known by id only.
        progress: told (topic, rows done, rows in all).
        skip_bad: append the good rows and send the others to `dead-letter`.
        exposures_path: the same for what was shown.

    Raises:
        DataError: a file cannot be read, or rows are bad and `skip_bad` is not set; then nothing
            was appended.
    """
    events = _Table(Path(events_path), EVENTS)
    seen: Counter[bytes] = Counter()
    events.read(lambda row: to_event(row, seen))
    tables = [events]
    if exposures_path is not None:
        tables = [_exposures(Path(exposures_path)), *tables]
    if items_path is not None:
        items = _Table(Path(items_path), ITEMS)
        default_ms = events.records[0].ts if events.records else 1
        items.read(lambda row: to_item(row, default_ms))
        tables = [items, *tables]
    bad = [row for table in tables for row in table.bad]
    if bad and not skip_bad:
        raise DataError(_summary(bad, sum(len(table.records) for table in tables)))
    appender = Appender(log, progress)
    for table in tables:
        appender.expect(table.topic, len(table.records))
    for table in tables:
        appender.append(table.topic, table.records)
    _bury(log, bad)
    first_ms = events.records[0].ts if events.records else None
    last_ms = events.records[-1].ts if events.records else None
    return LoadReport(appender.counts, first_ms, last_ms, len(bad))


def _exposures(path: Path) -> _Table:
    table, seen = _Table(path, EXPOSURES), Counter[bytes]()
    answers: dict[tuple[str, str], Exposure] = {}
    table.read(lambda row: to_exposure(row, answers, seen))
    return table


def _bury(log: EventLog, bad: Iterable[BadRow]) -> None:
    now_ms = time.time_ns() // 1_000_000
    if letters := [row.dead_letter(now_ms) for row in bad]:
        log.append(DEAD_LETTER, letters)


def _summary(bad: list[BadRow], num_good: int) -> str:
    """Say in one line how many rows are bad, which are the first, and what can be done."""
    shown = "; ".join(map(str, bad[:_SHOWN]))
    if len(bad) > _SHOWN:
        reasons = Counter(str(row.error.reason) for row in bad).most_common()
        shown += "; in all: " + ", ".join(f"{count} {reason}" for reason, count in reasons)
    return (
        f"nothing was imported: {len(bad)} of {len(bad) + num_good} rows are no valid records: "
        f"{shown}: mend them, or send them to the topic dead-letter with --skip-bad"
    )
