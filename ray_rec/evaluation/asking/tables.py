"""Any table of events as codes, in an order that tells nothing: by user, time, and a hash."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_rec.errors import DataError
from ray_rec.evaluation.asking.questions import Interactions
from ray_rec.features.arrays import AnyArray, Int64, UInt64, column, hash_strings, mix, numbers
from ray_rec.features.config import FeatureConfig
from ray_rec.features.index import Index


@dataclass(frozen=True)
class Events:
    """n events ordered by (user, ts, hash of user and item); codes are dense from 0."""

    user: Int64
    item: Int64
    ts: Int64  # ms
    type: AnyArray  # int8 codes of `FeatureConfig.event_types`
    item_ids: list[str]  # [N], the catalogue: those of `items` first
    item_hash: UInt64  # [N], stable over processes and tables

    def __len__(self) -> int:
        """Return n."""
        return len(self.user)

    @classmethod
    def of(
        cls, table: pa.Table, items: list[str] | None = None, config: FeatureConfig | None = None
    ) -> Self:
        """Return the rows of a table with user_id, item_id, event_type and ts (ms).

        Args:
            table: ids of any type; rows without an item are left out.
            items: ids of the catalogue, where it is known; items without events can be ranked too.
            config: gives event types their codes; its `target_types` are taken, the others not.

        Raises:
            DataError: no row is left.
        """
        config = config or FeatureConfig()
        usable = pc.and_(
            pc.is_in(table["event_type"].cast(pa.string()), pa.array(config.target_types)),
            pc.is_valid(table["item_id"]),
        )
        rows = table.filter(usable)
        if not rows.num_rows:
            raise DataError(_nothing(table, config))
        users, catalogue = column(rows, "user_id").cast("string"), Index(list(items or ()))
        item = catalogue.rows(column(rows, "item_id").cast("string"), add=True).astype(np.int64)
        user = Index().rows(users, add=True).astype(np.int64)
        ids = [str(name) for name in catalogue.ids]
        item_hash = hash_strings(pa.array(ids, pa.string()))
        ts = numbers(rows, "ts").astype(np.int64)
        order = np.lexsort((mix(hash_strings(users), item_hash[item]), ts, user))
        names = column(rows, "event_type").cast("string").to_pylist()
        code = np.array([config.type_codes[name] for name in names], np.int8)
        return cls(user[order], item[order], ts[order], code[order], ids, item_hash)

    def only(self, rows: AnyArray) -> Self:
        """Return some of them, marked [n]; codes stay, and so may have gaps."""
        names = ("user", "item", "ts", "type")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def interactions(self, rows: AnyArray) -> Interactions:
        """Return events as what rankers learn from; `rows` marks or names them, ascending."""
        return Interactions(self.user[rows], self.item[rows], self.ts[rows], self.type[rows])


def _nothing(table: pa.Table, config: FeatureConfig) -> str:
    found = sorted(map(str, pc.unique(table["event_type"]).to_pylist()))
    return (
        f"nothing to test: none of {table.num_rows} events has an item and one of the types "
        f"{list(config.target_types)}; found types {found}: name them in features.event_types "
        "and features.target_types, or take another stretch"
    )
