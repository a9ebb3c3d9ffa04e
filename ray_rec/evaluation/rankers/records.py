"""What an evaluation knows, as the records of a log from which features are made."""

from typing import Any

import numpy as np
import pyarrow as pa

from ray_rec.events.schema import ITEMS_SCHEMA


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


def records(columns: dict[str, Any], num_rows: int, schema: pa.Schema) -> pa.Table:
    """Return a table of a topic's schema, what is not given being null."""
    empty: dict[str, Any] = {field.name: pa.nulls(num_rows, field.type) for field in schema}
    return pa.table({**empty, **columns}).cast(schema)
