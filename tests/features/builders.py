"""Decoded tables and windows from short rows, with offsets counted on."""

from collections import defaultdict
from typing import Any

import pyarrow as pa

from ray_rec.events.schema import CONTROLS, EVENTS, EXPOSURES, ITEMS, SCHEMAS
from ray_rec.features.config import FeatureConfig
from ray_rec.features.state import FeatureState
from ray_rec.log.window import Window

MINUTE = 60_000
DAY = 86_400_000
T0 = 1_700_000_000_000


def event(user: str, item: str, ts: int, kind: str = "view", **more: Any) -> tuple[str, dict]:
    fields = {"user_id": user, "item_id": item, "event_type": kind, "ts": ts, **more}
    fields.setdefault("event_id", f"{user}-{item}-{kind}-{ts}")
    return EVENTS, fields


def exposure(request: str, user: str, ts: int, items: list, **more: Any) -> tuple[str, dict]:
    """`items`: ids, shown from position 1 on with propensity 0.5, or whole structs."""
    shown = [
        {"item_id": i, "position": n, "score": 0.0, "propensity": 0.5} if isinstance(i, str) else i
        for n, i in enumerate(items, 1)
    ]
    fields = {"request_id": request, "user_id": user, "ts": ts, "items": shown}
    return EXPOSURES, {"model_version": 1, "policy": "test", **fields, **more}


def item(item_id: str, title: str | None = None, ts: int = T0, **more: Any) -> tuple[str, dict]:
    fields = {"item_id": item_id, "title": title, "ts": ts, "available": True, "deleted": False}
    return ITEMS, {**fields, **more}


def control(user: str, action: str, ts: int) -> tuple[str, dict]:
    return CONTROLS, {"user_id": user, "action": action, "ts": ts}


def number_offsets(records: list[tuple[str, dict]]) -> list[tuple[str, dict]]:
    """Give each record (partition 0 if it names none) the next offset of its partition."""
    nexts: dict[tuple[str, int], int] = defaultdict(int)
    out = []
    for topic, fields in records:
        partition = fields.get("partition", 0)
        out.append((topic, {**fields, "partition": partition, "offset": nexts[topic, partition]}))
        nexts[topic, partition] += 1
    return out


def decoded(records: list[tuple[str, dict]]) -> dict[str, pa.Table]:
    rows: dict[str, list[dict]] = defaultdict(list)
    for topic, fields in records:
        rows[topic].append(fields)
    return {
        topic: pa.Table.from_pylist(
            [{n: r.get(n) for n in SCHEMAS[topic].names} for r in rs], SCHEMAS[topic]
        )
        for topic, rs in rows.items()
    }


def same(one: pa.Table, other: pa.Table) -> bool:
    """Equal schemas and values, NaN being itself."""
    metadata = one.schema.metadata == other.schema.metadata
    return metadata and repr(one.to_pydict()) == repr(other.to_pydict())


_ORDER = {
    "progress": ("topic", "partition"),
    "histories": ("user",),
    "seen_events": ("key", "ts"),
    "seen_exposures": ("key", "ts"),
    "controls": ("user", "ts", "action"),
    "open_exposures": ("partition", "offset"),
    "outcomes": ("user", "item", "ts", "type"),
}


def check_same_state(one: FeatureState, other: FeatureState) -> None:
    """Fail unless both hold the same; users and what waits may stand in another order."""
    assert one.totals == other.totals
    ours, theirs = one.snapshot(), other.snapshot()
    assert ours.keys() == theirs.keys()
    for name, table in ours.items():
        assert same(_in_order(name, table), _in_order(name, theirs[name])), name


def _in_order(name: str, table: pa.Table) -> pa.Table:
    """Return the rows in an order of their own, without the numbers of their first one."""
    if name not in _ORDER:
        return table
    order: list[Any] = [(key, "ascending") for key in _ORDER[name]]
    columns = [column for column in table.column_names if column != "number"]
    return table.sort_by(order).select(columns).replace_schema_metadata(None)


class Stream:
    """A state with windows counted on and offsets given by order of arrival."""

    def __init__(self, state: FeatureState | None = None, **config: Any) -> None:
        self.state = state or FeatureState(FeatureConfig(**config))
        self._next = {t: dict(spans) for t, spans in self.state.offsets.items()}

    def window(self, *records: tuple[str, dict], **plan: Any):
        """Apply the next window of these records; return its WindowExamples."""
        return self.state.apply(*self.plan(self.state.number, *records, **plan))

    def plan(self, number: int, *records: tuple[str, dict], **plan: Any):
        """Return window `number` of these records, and their tables."""
        ranges: dict[str, dict[int, tuple[int, int]]] = {}
        placed = []
        for topic, fields in records:
            partition = fields.get("partition", 0)
            offset = self._next.setdefault(topic, {}).get(partition, 0)
            start, _ = ranges.setdefault(topic, {}).get(partition, (offset, offset))
            ranges[topic][partition] = (start, offset + 1)
            self._next[topic][partition] = offset + 1
            placed.append((topic, {**fields, "partition": partition, "offset": offset}))
        return Window(number, ranges, **plan), decoded(placed)

    def item_ids(self, rows) -> list[str]:
        return [self.state.catalogue.item_id[row] for row in rows]

    def history(self, user: str) -> list[tuple[str, int]]:
        """Return (item id, ts) of a user's tokens."""
        found = self.state.histories.last(user)
        return list(zip(self.item_ids(found.item), found.ts.tolist(), strict=True))

    def queries(self, window) -> list[tuple[list[str], int, list[str]]]:
        """Return each recall query as (context item ids, ts, target item ids), in table order."""
        out = []
        for row in window.examples.to_pylist():
            for q, (context, ts) in enumerate(
                zip(row["query_context"], row["query_ts"], strict=True)
            ):
                picked = zip(row["target_query"], row["target_item"], strict=True)
                targets = [i for query, i in picked if query == q]
                if row["topic_code"] == 0:
                    seen = self.item_ids(row["token_item"][:context])
                    out.append((seen, ts, self.item_ids(targets)))
        return out

    def clicks(self, window) -> dict[int, tuple[list[str], list[tuple[str, int, int]]]]:
        """Return exposures closed by offset: (context, [(item, position, label bits)])."""
        out = {}
        for row in window.examples.to_pylist():
            if row["topic_code"] == 1:
                names = self.item_ids(row["shown_item"])
                shown = zip(names, row["shown_position"], row["shown_labels"], strict=True)
                out[row["offset"]] = (self.item_ids(row["token_item"]), list(shown))
        return out
