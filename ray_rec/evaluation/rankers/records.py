"""What an evaluation knows, as the records of a log from which features are made."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ray_rec.events.schema import ITEMS_SCHEMA, PROMOTION_TYPE
from ray_rec.features.promotions import columns_of


def item_records(items: pa.Table) -> pa.Table:
    """Return the catalogue as records: the text is the title, and says all."""
    num_items = items.num_rows
    columns = {
        "partition": np.zeros(num_items, np.int32),
        "offset": np.arange(num_items),
        "item_id": items["item_id"],
        "ts": np.zeros(num_items, np.int64),
        "title": items["text"],
        "price": items["price"],
        "available": items["available"],
        "deleted": np.zeros(num_items, np.bool_),
    }
    return records(columns, num_items, ITEMS_SCHEMA)


def promotion_records(
    items: pa.Table, promoted: pa.Table, channels: Sequence[str], begin: int
) -> pa.Table:
    """Return records of items, from an offset on, that say what PROMOTED_SCHEMA rows say."""
    _, ts, shares = columns_of(promoted)
    told = [list(zip(channels, row, strict=True)) for row in shares.tolist()]
    out = item_records(items.take(promoted["item"]))
    given = {
        "offset": np.arange(begin, begin + promoted.num_rows),
        "ts": ts,
        "promotion": pa.array(told, PROMOTION_TYPE),
    }
    columns = {name: given.get(name, out[name]) for name in out.column_names}
    return records(columns, promoted.num_rows, ITEMS_SCHEMA)


def records(columns: dict[str, Any], num_rows: int, schema: pa.Schema) -> pa.Table:
    """Return a table of a topic's schema, what is not given being null."""
    empty: dict[str, Any] = {field.name: pa.nulls(num_rows, field.type) for field in schema}
    return pa.table({**empty, **columns}).cast(schema)
