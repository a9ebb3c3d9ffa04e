"""A tiny shop by hand: example rows, items with text vectors, windows; N items in a ring."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_rec.features.examples import EXAMPLES_SCHEMA, WINDOW_ITEMS_SCHEMA, WindowExamples
from ray_rec.features.histories import History
from ray_rec.features.responses import num_rates
from ray_rec.model.config import ModelConfig

RAW_DIM = 24
NUM_ITEMS = 40
HORIZONS = 3
HOUR_MS = 3_600_000
NOW_MS = 1_700_000_000_000
PLAIN = ModelConfig(dim=16, text_dim=16, tower_dim=16, dropout=0.0, id_dropout=0.0, max_length=12)


def text_vectors(num: int = NUM_ITEMS, seed: int = 0) -> npt.NDArray[np.float32]:
    """Raw text vectors [num, RAW_DIM]; more items leave the first ones as they were."""
    made = [np.random.default_rng([seed, row]).normal(size=RAW_DIM) for row in range(num)]
    return np.array(made, np.float32).reshape(num, RAW_DIM)


def items(first: int = 0, end: int = NUM_ITEMS) -> pa.Table:
    rows = range(first, end)
    return pa.Table.from_pylist(
        [
            {"row": r, "item_id": f"i{r}", "text": f"item {r}", "price": 1.0 + r, "available": True}
            for r in rows
        ],
        WINDOW_ITEMS_SCHEMA,
    )


def popularity(num: int = NUM_ITEMS, seed: int = 3) -> npt.NDArray[np.float32]:
    counts = np.random.default_rng(seed).gamma(1.0, 5.0, size=(num, HORIZONS))
    return np.log1p(counts).astype(np.float32)


POPULARITY = popularity()


def row(
    tokens: Sequence[int],
    targets: Sequence[int] = (),
    shown: Sequence[tuple[int, int]] = (),
    offset: int = 0,
    step: int = 0,
) -> dict[str, Any]:
    """One query after `tokens`, an hour apart; `shown` holds (item, labels)."""
    return {
        "step": step,
        "topic_code": 1 if shown else 0,
        "partition": 0,
        "offset": offset,
        "held_out": False,
        "token_item": list(tokens),
        "token_type": [4] * len(tokens),
        "token_ts": [NOW_MS - (len(tokens) - at) * HOUR_MS for at in range(len(tokens))],
        "query_context": [len(tokens)],
        "query_ts": [NOW_MS],
        "target_query": [0] * len(targets),
        "target_item": list(targets),
        "target_type": [4] * len(targets),
        "shown_query": [0] * len(shown),
        "shown_item": [item for item, _ in shown],
        "shown_position": [1 + at for at in range(len(shown))],
        "shown_labels": [labels for _, labels in shown],
        "shown_propensity": [1.0] * len(shown),
        "shown_placement": [0] * len(shown),
        "shown_rates": [0.0] * len(shown) * num_rates(3),
        "shown_popularity": [float(p) for item, _ in shown for p in POPULARITY[item]],
    }


def table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), EXAMPLES_SCHEMA)


def ring_rows(
    num: int, seed: int, rows_per_step: int = 16, num_items: int = NUM_ITEMS
) -> list[dict[str, Any]]:
    """People who walk round the ring of items: what comes next follows from the last item alone."""
    starts = np.random.default_rng(seed).integers(0, num_items, num)
    walk = [[(start + at) % num_items for at in range(7)] for start in starts.tolist()]
    return [
        row(path[:-1], path[-1:], offset=at, step=at // rows_per_step)
        for at, path in enumerate(walk)
    ]


def click_rows(num: int, seed: int, rows_per_step: int = 16) -> list[dict[str, Any]]:
    """People who are shown four items; what is dearer than half of all items is bought."""
    random = np.random.default_rng(seed)
    rows = []
    for at in range(num):
        shown = [(int(i), 4 * int(i >= NUM_ITEMS // 2)) for i in random.integers(0, NUM_ITEMS, 4)]
        tokens = random.integers(0, NUM_ITEMS, 5).tolist()
        rows.append(row(tokens, shown=shown, offset=at, step=at // rows_per_step))
    return rows


def window(number: int, rows: Sequence[dict[str, Any]], num: int = NUM_ITEMS) -> WindowExamples:
    listed = items(0, num) if number == 0 else items(0, 0)
    responses = np.zeros((num, 4), np.int64)
    return WindowExamples(number, table(rows), listed, popularity(num), NOW_MS, responses, {})


def history(tokens: Sequence[int], at_ms: int = NOW_MS) -> History:
    """What `row` remembers, as serving has it."""
    ts = np.array([at_ms - (len(tokens) - at) * HOUR_MS for at in range(len(tokens))], np.int64)
    return History(np.array(tokens, np.int32), np.full(len(tokens), 4, np.int8), ts)
