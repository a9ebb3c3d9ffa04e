"""The online join against one SQL statement (join.sql), over a whole year of a grocery."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from ray_rec.config import load_config
from ray_rec.datasets.complete_journey import OVERRIDES, POLICY, load
from ray_rec.events.schema import EVENTS, EXPOSURES, ITEMS
from ray_rec.features.arrays import lists, numbers, starts_of
from ray_rec.features.config import DAY_MS, FeatureConfig
from ray_rec.features.state import FeatureState
from ray_rec.log.base import create_standard_topics, open_log
from ray_rec.log.cut import cut
from ray_rec.log.reading import read_decoded
from ray_rec.log.window import Window

SQL = Path(__file__).with_name("join.sql").read_text()
WEEK = load_config(None, OVERRIDES, environ={}).features
DAYS = replace(
    WEEK, attribution_by_policy_ms={}, attribution_by_outcome_ms={"purchase": 3 * DAY_MS}
)
Year = list[tuple[Window, dict[str, pa.Table]]]


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Year:
    """The year in windows of some 20,000 records, and one that closes what is open at the end."""
    url = f"sqlite:///{tmp_path_factory.mktemp('year')}/log.db"
    with open_log(url) as log:
        create_standard_topics(log, partitions=2)
        end_ms = load(log, (1, 53)).last_ms
        windows = list(cut(log, (ITEMS, EVENTS, EXPOSURES), 20_000))
    decoded: Year = [
        (w, {topic: part.table for topic, part in read_decoded(url, w.ranges).items()})
        for w in windows
    ]
    return [*decoded, (Window(len(windows), {}, advance_to_ms=end_ms + 8 * DAY_MS), {})]


def unnamed(year: Year) -> Year:
    """The same with events that name no request."""
    out = []
    for window, tables in year:
        if EVENTS in tables:
            at = tables[EVENTS].schema.get_field_index("request_id")
            nothing = pa.nulls(tables[EVENTS].num_rows, pa.string())
            tables = tables | {EVENTS: tables[EVENTS].set_column(at, "request_id", nothing)}
        out.append((window, tables))
    return out


def by_sql(year: Year, config: FeatureConfig) -> pa.Table:
    connection = duckdb.connect()
    for topic in (EVENTS, EXPOSURES):
        connection.register(topic, pa.concat_tables([t[topic] for _, t in year if topic in t]))
    code = config.policy_codes.get(POLICY, 0)
    windows = [
        {"policy": POLICY, "event_type": name, "bit": 1 << place, "ms": ms}
        for place, (name, ms) in enumerate(
            zip(config.outcome_types, config.attribution_windows_ms[code], strict=True)
        )
    ]
    connection.register("windows", pa.Table.from_pylist(windows))
    settings = {
        "lateness_ms": config.lateness_ms,
        "history_length": config.history_length,
        "token_types": list(config.target_types),
    }
    return connection.sql(SQL, params=settings).to_arrow_table()


def online(year: Year, config: FeatureConfig) -> tuple[pa.Table, FeatureState, list[pa.Table]]:
    """Return the closed exposures in the columns of the statement, the state, all examples."""
    state = FeatureState(config)
    examples = [state.apply(window, tables).examples for window, tables in year]
    rows = pa.concat_tables(examples)
    rows = rows.filter(pa.array(numbers(rows, "topic_code") == 1))
    rows = rows.take(np.lexsort([numbers(rows, "offset"), numbers(rows, "partition")]))
    ids = pa.array(state.catalogue.item_id)

    def named(column: str) -> Any:
        values, lengths = lists(rows, column)
        return pa.ListArray.from_arrays(pa.array(starts_of(lengths), pa.int32()), ids.take(values))

    columns = {
        "partition": rows["partition"],
        "offset": rows["offset"],
        "ts": pa.array(lists(rows, "query_ts")[0]),
        "items": named("shown_item"),
        "labels": rows["shown_labels"],
        "token_items": named("token_item"),
        "token_ts": rows["token_ts"],
    }
    return pa.table(columns), state, examples


def plain(table: pa.Table) -> dict[str, list[Any]]:
    return {name: table[name].to_pylist() for name in table.schema.names}


@pytest.mark.parametrize("names_requests", [True, False])
def test_the_year_joined_online_is_the_year_joined_by_sql(year: Year, names_requests: bool) -> None:
    config, stretch = (WEEK, year) if names_requests else (DAYS, unnamed(year))
    expected = by_sql(stretch, config)
    found, state, examples = online(stretch, config)
    assert expected.num_rows == found.num_rows > 60_000
    assert len(lists(expected, "items")[0]) > 1_500_000
    assert lists(expected, "labels")[0].any()
    assert plain(found) == plain(expected)
    assert state.join.open.num_rows == state.join.outcomes.num_rows == 0
    for rows in examples:
        assert not_of_the_future(rows)


def not_of_the_future(rows: pa.Table) -> bool:
    """Whether no query sees a token of its own time or later."""
    ts, lengths = lists(rows, "token_ts")
    context, queries = lists(rows, "query_context")
    row = np.repeat(np.arange(rows.num_rows), queries)
    first = starts_of(lengths)
    inner = np.setdiff1d(np.arange(1, len(ts)), first)
    last = first[row] + context - 1
    seen = context > 0
    return bool(
        (ts[inner] >= ts[inner - 1]).all()
        and (context <= lengths[row]).all()
        and (ts[last[seen]] < lists(rows, "query_ts")[0][seen]).all()
    )
