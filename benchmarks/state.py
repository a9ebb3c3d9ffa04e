"""What it costs to keep the state of 10,000, 100,000 and 1,000,000 users.

    python -m benchmarks.state [--quick]

Each number of users has a process of its own. Their histories are made of windows of events (ten
a user on average, most have less) over 30 days and 10,000 items; then windows of 1,000 events and
100 exposures come in, and each is followed by the changes. By number of users, medians:
`apply_s`: a window into the state, examples made;
`delta_s`, `delta_bytes`: the changes after it, as the compressed tables that are stored;
`full_s`, `full_bytes`: the whole state likewise;
`restart_s`: from the bytes of a full one and the changes after it to the state;
`bytes_per_user`: resident memory (RSS) that the users and their keys added to the process.
"""

import argparse
import ctypes
import gc
import multiprocessing
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks._results import finish
from ray_rec.events.schema import EVENTS, EXPOSURES, ITEMS, SCHEMAS
from ray_rec.features.config import DAY_MS, FeatureConfig
from ray_rec.features.state import FeatureState
from ray_rec.log.window import Window
from ray_rec.registry.files import table_from_bytes, table_to_bytes

USERS = (10_000, 100_000, 1_000_000)
NUM_ITEMS, EVENTS_EACH, DAYS, SHOWN = 10_000, 10, 30, 10
WINDOW_EVENTS, WINDOW_EXPOSURES, FILL_EVENTS = 1_000, 100, 200_000
FIRST_TS = 1_700_000_000_000


def main() -> None:
    """Run the benchmark and print its result as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a run of a minute or two")
    arguments = parser.parse_args()
    sizes, windows = (USERS[:2], 20) if arguments.quick else (USERS, 50)
    result: dict[str, Any] = {}
    for users in sizes:
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawned) as process:
            for name, value in process.submit(measure, users, windows).result().items():
                result.setdefault(name, {})[str(users)] = round(value, 6)
        print({name: values[str(users)] for name, values in result.items()}, flush=True)
    ratio = "ratio_delta_100k_10k" if arguments.quick else "ratio_delta_1m_10k"
    result[ratio] = result["delta_s"][str(sizes[-1])] / result["delta_s"][str(sizes[0])]
    config = {
        "items": NUM_ITEMS,
        "events_each": EVENTS_EACH,
        "days": DAYS,
        "window": {"events": WINDOW_EVENTS, "exposures": WINDOW_EXPOSURES},
        "windows": windows,
        "features": FeatureConfig().to_dict(),
    }
    finish("state", result, config, arguments.quick)


def measure(users: int, windows: int) -> dict[str, float]:
    """Return the numbers for so many users."""
    shop = _Shop(users)
    shop.apply({ITEMS: _items()})
    before = _resident_bytes()
    shop.fill()
    added = _resident_bytes() - before
    full_s, full = _timed(lambda: _as_bytes(shop.state.snapshot()))
    segments, spent = [full], []
    for _ in range(windows):
        tables = shop.behaviour(WINDOW_EVENTS, WINDOW_EXPOSURES)
        apply_s, _ = _timed(lambda tables=tables: shop.apply(tables))
        delta_s, delta = _timed(lambda: _as_bytes(shop.state.changes()))
        segments.append(delta)
        spent.append((apply_s, delta_s, _size(delta)))
    restart_s, restored = _timed(lambda: _restored(segments))
    if (restored.totals, restored.num_bytes) != (shop.state.totals, shop.state.num_bytes):
        raise SystemExit("the restored state is another one")
    apply_s, delta_s, delta_bytes = map(statistics.median, zip(*spent, strict=True))
    return {
        "apply_s": apply_s,
        "delta_s": delta_s,
        "delta_bytes": delta_bytes,
        "full_s": full_s,
        "full_bytes": _size(full),
        "restart_s": restart_s,
        "bytes_per_user": added / users,
        "counted_bytes_per_user": shop.state.histories.num_bytes / users,
    }


class _Shop:
    """Behaviour of so many users, window by window, and the state that takes it."""

    def __init__(self, users: int) -> None:
        self.state = FeatureState(FeatureConfig())
        self._users = users
        self._generator = np.random.default_rng(0)
        self._num = {EVENTS: 0, EXPOSURES: 0}
        self._step_ms = DAYS * DAY_MS / (users * EVENTS_EACH)
        self._now = float(FIRST_TS)

    def fill(self) -> None:
        """Give every user a history: at least one event, and more for few."""
        more = self._generator.geometric(0.01, self._users).astype(np.float64) ** 1.5
        more *= (EVENTS_EACH - 1) / more.mean()
        user = np.repeat(np.arange(self._users), 1 + np.round(more).astype(np.int64))
        self._generator.shuffle(user)
        for start in range(0, len(user), FILL_EVENTS):
            events = self._events(user[start : start + FILL_EVENTS])
            self.apply({EVENTS: events}, examples=False)

    def behaviour(self, events: int, exposures: int) -> dict[str, pa.Table]:
        """Return new events and exposures of random users."""
        actors = self._generator.integers(self._users, size=events)
        shown_to = self._generator.integers(self._users, size=exposures)
        return {EXPOSURES: self._exposures(shown_to), EVENTS: self._events(actors)}

    def apply(self, tables: Mapping[str, pa.Table], examples: bool = True) -> None:
        """Apply the next window."""
        ranges = {
            topic: {0: (int(offset[0].as_py()), int(offset[-1].as_py()) + 1)}
            for topic, offset in ((topic, table["offset"]) for topic, table in tables.items())
        }
        self.state.apply(Window(self.state.number, ranges), tables, examples)

    def _events(self, user: Any) -> pa.Table:
        place = self._place(EVENTS, len(user))
        types = np.array(["view", "click", "cart", "purchase"], object)
        kinds = self._generator.choice(4, len(user), p=[0.7, 0.2, 0.06, 0.04])
        columns = {
            "event_id": _named("event-", place["offset"]),
            "user_id": _named("user-", user),
            "item_id": _named("item-", self._popular(len(user))),
            "event_type": types[kinds],
            "ts": (self._now + self._step_ms * np.arange(len(user))).astype(np.int64),
            **place,
        }
        self._now += self._step_ms * len(user)
        return _table(EVENTS, columns)

    def _exposures(self, user: Any) -> pa.Table:
        shown = len(user) * SHOWN
        items = pa.StructArray.from_arrays(
            [
                _named("item-", self._popular(shown)),
                pa.array(np.tile(np.arange(1, SHOWN + 1), len(user)), pa.int32()),
                pa.array(np.zeros(shown), pa.float64()),
                pa.array(np.full(shown, 0.1), pa.float64()),
            ],
            fields=list(SCHEMAS[EXPOSURES].field("items").type.value_type),
        )
        place, ends = self._place(EXPOSURES, len(user)), np.arange(0, shown + 1, SHOWN)
        columns = {
            "request_id": _named("request-", place["offset"]),
            "user_id": _named("user-", user),
            "ts": np.full(len(user), int(self._now)),
            "model_version": np.ones(len(user), np.int64),
            "policy": pa.array(["greedy"] * len(user)),
            "items": pa.ListArray.from_arrays(pa.array(ends, pa.int32()), items),
            **place,
        }
        return _table(EXPOSURES, columns)

    def _popular(self, num: int) -> Any:
        return self._generator.zipf(1.2, num) % NUM_ITEMS

    def _place(self, topic: str, num: int) -> dict[str, Any]:
        first = self._num[topic]
        self._num[topic] += num
        return {"partition": np.zeros(num, np.int32), "offset": np.arange(first, first + num)}


def _items() -> pa.Table:
    number = np.arange(NUM_ITEMS)
    columns = {
        "item_id": _named("item-", number),
        "title": _named("An item of the usual length, number ", number),
        "category": _named("category ", number % 50),
        "price": number % 100 + 0.99,
        "available": np.ones(NUM_ITEMS, np.bool_),
        "deleted": np.zeros(NUM_ITEMS, np.bool_),
        "ts": np.full(NUM_ITEMS, FIRST_TS),
        "partition": np.zeros(NUM_ITEMS, np.int32),
        "offset": number,
    }
    return _table(ITEMS, columns)


def _named(prefix: str, numbers: Any) -> Any:
    return pc.binary_join_element_wise(pa.scalar(prefix), pa.array(numbers).cast(pa.string()), "")


def _table(topic: str, columns: Mapping[str, Any]) -> pa.Table:
    """Return columns as the decoded records of a topic; what is not given is null."""
    schema = SCHEMAS[topic]
    rows = len(columns["offset"])
    filled = {
        field.name: pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.nulls(rows, field.type)
        for field in schema
    }
    return pa.table(filled, schema=schema)


def _as_bytes(tables: Mapping[str, pa.Table]) -> dict[str, bytes]:
    return {name: table_to_bytes(table) for name, table in tables.items()}


def _size(files: Mapping[str, bytes]) -> int:
    return sum(map(len, files.values()))


def _restored(segments: list[dict[str, bytes]]) -> FeatureState:
    tables = [{n: table_from_bytes(data) for n, data in files.items()} for files in segments]
    return FeatureState.restore(FeatureConfig(), tables)


def _timed(call: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    out = call()
    return time.perf_counter() - started, out


def _resident_bytes() -> int:
    """Return the process's resident memory, after giving back what is free."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("resident memory is read from /proc: run this on Linux")


if __name__ == "__main__":
    main()
