"""Tables of events as somebody would import them."""

import pyarrow as pa

Taken = tuple[str, str | None, int]
"""(user, item, ts)"""


def table(taken: list[Taken], event_type: str = "purchase") -> pa.Table:
    users, items, ts = zip(*taken, strict=True) if taken else ((), (), ())
    return pa.table(
        {
            "user_id": pa.array(users, pa.string()),
            "item_id": pa.array(items, pa.string()),
            "event_type": pa.array([event_type] * len(taken), pa.string()),
            "ts": pa.array(ts, pa.int64()),
        }
    )
