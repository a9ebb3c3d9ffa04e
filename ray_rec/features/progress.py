"""How far the log has been applied: the next window, the next offsets, and what became of it."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from ray_rec.errors import StateError
from ray_rec.features.config import BOUNDS, FeatureConfig
from ray_rec.features.part import Part

_OFFSETS: list[tuple[str, Any]] = [
    ("topic", pa.string()),
    ("partition", pa.int32()),
    ("offset", pa.int64()),
]
_OFFSETS_SCHEMA = pa.schema(_OFFSETS)

Ranges = Mapping[str, Mapping[int, tuple[int, int]]]


class Progress(Part):
    """`number` is the next window, `offsets` the next to be read, `totals` all counts so far."""

    always_whole = True

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self._config = config
        self.number = 0
        self.offsets: dict[str, dict[int, int]] = {}
        self.totals: dict[str, int] = {}

    @property
    def num_bytes(self) -> int:
        """Nothing that would count."""
        return 0

    def check(self, number: int, ranges: Ranges) -> None:
        """Raise StateError when this window is not the next one or goes back in the log."""
        if number != self.number:
            raise StateError(
                f"window {number} was given, the next one is {self.number}: apply each "
                "window once and in order, or restore the snapshot taken before it"
            )
        for topic, spans in ranges.items():
            for partition, (start, _) in spans.items():
                reached = self.offsets.get(topic, {}).get(partition, 0)
                if start < reached:
                    raise StateError(
                        f"window {number} starts {topic}/{partition} at offset {start}, but "
                        f"offsets below {reached} were applied already: plan it from there"
                    )

    def advance(self, ranges: Ranges, counts: Mapping[str, int]) -> None:
        """Count a window as applied."""
        self.number += 1
        for topic, spans in ranges.items():
            self.offsets.setdefault(topic, {}).update({p: end for p, (_, end) in spans.items()})
        for name, count in counts.items():
            self.totals[name] = self.totals.get(name, 0) + count

    def _segment(self, whole: bool) -> pa.Table:
        places = [(t, p, o) for t, spans in self.offsets.items() for p, o in spans.items()]
        facts = {"config": self._config.to_dict(), "totals": self.totals}
        return pa.Table.from_pylist(
            [{"topic": t, "partition": p, "offset": o} for t, p, o in places], _OFFSETS_SCHEMA
        ).replace_schema_metadata(
            {"number": str(self.number)}
            | {name: json.dumps(value, sort_keys=True) for name, value in facts.items()}
        )

    def _load(self, table: pa.Table) -> None:
        facts = table.schema.metadata
        _same_config(self._config, json.loads(facts[b"config"]))
        self.number, self.totals = int(facts[b"number"]), json.loads(facts[b"totals"])
        for place in table.to_pylist():
            self.offsets.setdefault(place["topic"], {})[place["partition"]] = place["offset"]


def _same_config(config: FeatureConfig, stored: dict[str, Any]) -> None:
    """Raise StateError when the state would mean something else; its bounds may be moved."""
    wanted = config.to_dict()
    differing = sorted(k for k in stored.keys() | wanted.keys() if stored.get(k) != wanted.get(k))
    differing = [key for key in differing if key not in BOUNDS]
    if differing:
        key = differing[0]
        raise StateError(
            f"the snapshot was made with features.{key} = {stored.get(key)!r}, not "
            f"{wanted.get(key)!r}: use that value, or rebuild the state from the log"
        )
