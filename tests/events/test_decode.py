"""Decoding: each way of being bad has its reason, and whole batches say what single records say."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_rec.errors import ConfigError, InvalidRecord
from ray_rec.events import (
    CONTROLS,
    EVENTS,
    EXPOSURES,
    ITEMS,
    LOG_SCHEMA,
    SCHEMAS,
    DeadLetter,
    Reason,
    check_time,
    dead_letters,
    decode,
    decode_one,
    encode,
    key_of,
)
from ray_rec.events.schema import MAX_AHEAD_MS

EVENT = {"event_id": "e1", "user_id": "u1", "item_id": "i1", "event_type": "click", "ts": 5}
SHOWN = {"item_id": "i1", "position": 1, "score": 0.5, "propensity": 1.0, "placement": "top"}
GOOD: dict[str, dict[str, Any]] = {
    EVENTS: EVENT,
    ITEMS: {"item_id": "i1", "title": "Tea", "ts": 5},
    EXPOSURES: {
        "request_id": "r1",
        "user_id": "u1",
        "ts": 5,
        "model_version": 3,
        "policy": "top",
        "items": [SHOWN],
    },
    CONTROLS: {"user_id": "u1", "action": "opt_out", "ts": 5},
}
KEYS = {EVENTS: b"u1", ITEMS: b"i1", EXPOSURES: b"u1", CONTROLS: b"u1"}


def raw(values: list[bytes | None], keys: list[bytes | None] | bytes) -> pa.Table:
    n = len(values)
    keys = [keys] * n if isinstance(keys, bytes) else keys
    columns = [[7] * n, list(range(100, 100 + n)), [9] * n, keys, values]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, LOG_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=LOG_SCHEMA)


def dumps(base: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps({**base, **changes}).encode()


def without(base: dict[str, Any], name: str) -> bytes:
    return json.dumps({k: v for k, v in base.items() if k != name}).encode()


BAD = [
    (EVENTS, None, Reason.EMPTY_RECORD, ""),
    (EVENTS, b"", Reason.EMPTY_RECORD, ""),
    (EVENTS, b" ", Reason.NOT_JSON, ""),
    (EVENTS, b"{", Reason.NOT_JSON, ""),
    (EVENTS, dumps(EVENT) + b" {}", Reason.NOT_JSON, ""),
    (EVENTS, dumps(EVENT) + b"\n" + dumps(EVENT), Reason.NOT_JSON, ""),
    (EVENTS, b'{"x": "\xff"}', Reason.NOT_UTF8, ""),
    (EVENTS, dumps(EVENT)[:-1] + b', "unknown": "\xff"}', Reason.NOT_UTF8, ""),
    (EVENTS, dumps(EVENT)[:-1] + b', "context": {"a": "\xff"}}', Reason.NOT_UTF8, ""),
    (EVENTS, b'{"x":' * 100_000, Reason.TOO_DEEP, ""),
    (EVENTS, b"[]", Reason.NOT_AN_OBJECT, ""),
    (EVENTS, b"null", Reason.NOT_AN_OBJECT, ""),
    (EVENTS, without(EVENT, "user_id"), Reason.MISSING_FIELD, "user_id"),
    (EVENTS, without(EVENT, "ts"), Reason.MISSING_FIELD, "ts"),
    (EVENTS, dumps(EVENT, ts="5"), Reason.WRONG_TYPE, "ts"),
    (EVENTS, dumps(EVENT, ts=5.0), Reason.WRONG_TYPE, "ts"),
    (EVENTS, dumps(EVENT, ts=True), Reason.WRONG_TYPE, "ts"),
    (EVENTS, dumps(EVENT, ts=0), Reason.OUT_OF_RANGE, "ts"),
    (EVENTS, dumps(EVENT, ts=10**14), Reason.OUT_OF_RANGE, "ts"),
    (EVENTS, dumps(EVENT, user_id=""), Reason.WRONG_LENGTH, "user_id"),
    (EVENTS, dumps(EVENT, item_id="i" * 257), Reason.WRONG_LENGTH, "item_id"),
    (EVENTS, dumps(EVENT, event_type="t" * 65), Reason.WRONG_LENGTH, "event_type"),
    (EVENTS, dumps(EVENT, position=0), Reason.OUT_OF_RANGE, "position"),
    (EVENTS, dumps(EVENT, position=2**31), Reason.OUT_OF_RANGE, "position"),
    (EVENTS, dumps(EVENT, price=-0.01), Reason.OUT_OF_RANGE, "price"),
    (EVENTS, dumps(EVENT, quantity="1"), Reason.WRONG_TYPE, "quantity"),
    (EVENTS, dumps(EVENT)[:-1] + b', "quantity": 1e999}', Reason.OUT_OF_RANGE, "quantity"),
    (EVENTS, dumps(EVENT)[:-1] + b', "quantity": NaN}', Reason.NOT_JSON, ""),
    (EVENTS, dumps(EVENT, context=[1]), Reason.WRONG_TYPE, "context"),
    (EVENTS, dumps(EVENT, user_id="u2"), Reason.KEY_MISMATCH, "user_id"),
    (EVENTS, dumps(EVENT, more="x" * 2**20), Reason.TOO_LARGE, ""),
    (ITEMS, without(GOOD[ITEMS], "title"), Reason.MISSING_FIELD, "title"),
    (ITEMS, dumps(GOOD[ITEMS], price=-1), Reason.OUT_OF_RANGE, "price"),
    (ITEMS, dumps(GOOD[ITEMS], available="yes"), Reason.WRONG_TYPE, "available"),
    (ITEMS, dumps(GOOD[ITEMS], item_id="i2"), Reason.KEY_MISMATCH, "item_id"),
    (EXPOSURES, dumps(GOOD[EXPOSURES], items={}), Reason.WRONG_TYPE, "items"),
    (EXPOSURES, dumps(GOOD[EXPOSURES], items=[{}]), Reason.MISSING_FIELD, "items[0].item_id"),
    (
        EXPOSURES,
        dumps(GOOD[EXPOSURES], items=[SHOWN, {**SHOWN, "propensity": 0}]),
        Reason.OUT_OF_RANGE,
        "items[1].propensity",
    ),
    (EXPOSURES, dumps(GOOD[EXPOSURES], model_version=-1), Reason.OUT_OF_RANGE, "model_version"),
    (CONTROLS, dumps(GOOD[CONTROLS], action="delete"), Reason.UNKNOWN_VALUE, "action"),
    # the records' own time is 9
    (EVENTS, dumps(EVENT, ts=10 + MAX_AHEAD_MS), Reason.AHEAD_OF_LOG, "ts"),
    (EXPOSURES, dumps(GOOD[EXPOSURES], ts=10**14 - 1), Reason.AHEAD_OF_LOG, "ts"),
    (CONTROLS, dumps(GOOD[CONTROLS], ts=10 + MAX_AHEAD_MS), Reason.AHEAD_OF_LOG, "ts"),
]


@pytest.mark.parametrize(("topic", "value", "reason", "field"), BAD)
def test_each_bad_record_has_its_reason(
    topic: str, value: bytes | None, reason: Reason, field: str
) -> None:
    good = dumps(GOOD[topic])
    decoded = decode(topic, raw([good, value, good], KEYS[topic]))
    assert decoded.table["offset"].to_pylist() == [100, 102]
    assert decoded.dead.to_pylist() == [
        {
            "topic": topic,
            "partition": 7,
            "offset": 101,
            "reason": reason,
            "field": field,
            "value": value,
            "key": KEYS[topic],
            "ts": 9,
        }
    ]


@pytest.mark.parametrize(("topic", "value", "reason", "field"), BAD)
def test_a_single_record_says_the_same(
    topic: str, value: bytes | None, reason: Reason, field: str
) -> None:
    if reason is Reason.KEY_MISMATCH:
        assert key_of(topic, decode_one(topic, value)) != KEYS[topic]
        return
    with pytest.raises(InvalidRecord) as caught:
        check_time(decode_one(topic, value).ts, log_ms=9)
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert not field or field in str(caught.value)


def test_time_is_judged_by_the_log_as_far_as_it_has_one() -> None:
    far = dumps(EVENT, ts=10**14 - 1)
    values = [dumps(EVENT, ts=9 + MAX_AHEAD_MS), far, far, far]
    table = raw(values, b"u1")
    table = table.set_column(2, table.schema.field(2), pa.array([9, 9, 0, -1]))
    decoded = decode(EVENTS, table)
    assert decoded.table["offset"].to_pylist() == [100, 102, 103]
    assert decoded.dead["reason"].to_pylist() == [Reason.AHEAD_OF_LOG]
    item = dumps(GOOD[ITEMS], ts=10**14 - 1)  # moves no watermark
    assert decode(ITEMS, raw([item], b"i1")).table.num_rows == 1


def test_every_reason_is_tested() -> None:
    assert {reason for _, _, reason, _ in BAD} == set(Reason)


@pytest.mark.parametrize("topic", list(GOOD))
def test_schemas_hold_for_full_and_empty_tables(topic: str) -> None:
    decoded = decode(topic, raw([dumps(GOOD[topic])], KEYS[topic]))
    assert decoded.table.schema == SCHEMAS[topic]
    assert decode(topic, LOG_SCHEMA.empty_table()).table.schema == SCHEMAS[topic]
    row = decoded.table.to_pylist()[0]
    assert {name: row[name] for name in GOOD[topic]} == GOOD[topic]


def test_optional_fields_null_and_unknown() -> None:
    full = dumps(
        EVENT, price=None, quantity=2, position=3, context={"a": [1, "é"]}, unknown={"deep": [1]}
    )
    row = decode(EVENTS, raw([full], b"u1")).table.to_pylist()[0]
    assert (row["price"], row["quantity"], row["position"]) == (None, 2.0, 3)
    assert json.loads(row["context"]) == {"a": [1, "é"]}


def test_promotions_are_shares_by_channel() -> None:
    told = [{"mailer": 1, "display": 0.5}, {}, None]
    values = [dumps(GOOD[ITEMS], promotion=each) for each in told]
    rows = decode(ITEMS, raw(values, b"i1")).table["promotion"].to_pylist()
    assert rows == [[("mailer", 1.0), ("display", 0.5)], [], None]
    wrong = [{"mailer": 1.5}, {"": 0.5}, {"mailer": "all"}, [0.5], 0.5]
    dead = decode(ITEMS, raw([dumps(GOOD[ITEMS], promotion=each) for each in wrong], b"i1")).dead
    assert dead["reason"].to_pylist() == [
        Reason.OUT_OF_RANGE,
        Reason.WRONG_LENGTH,
        *[Reason.WRONG_TYPE] * 3,
    ]
    assert {field.partition("[")[0] for field in dead["field"].to_pylist()} == {"promotion"}


def test_pretty_printed_objects_are_as_good() -> None:
    value = json.dumps(EVENT, indent=2).encode()
    assert decode(EVENTS, raw([value, value], b"u1")).table.num_rows == 2


def test_objects_torn_over_two_records_are_two_dead_letters() -> None:
    value = dumps(EVENT)
    cut = value.index(b" ") + 1
    decoded = decode(EVENTS, raw([value[:cut], value[cut:], value], b"u1"))
    assert decoded.table["offset"].to_pylist() == [102]
    assert decoded.dead["reason"].to_pylist() == [Reason.NOT_JSON, Reason.NOT_AN_OBJECT]


def test_removed_items_keep_their_place() -> None:
    first, second = dumps(GOOD[ITEMS]), dumps(GOOD[ITEMS], item_id="i2")
    values = [first, None, b"", second, None, None, None]
    keys = [b"i1", b"i1", b"i2", b"i2", None, b"\xff", b""]
    decoded = decode(ITEMS, raw(values, keys))
    rows = decoded.table.select(["offset", "item_id", "deleted", "title"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (100, "i1", False, "Tea"),
        (101, "i1", True, None),
        (102, "i2", True, None),
        (103, "i2", False, "Tea"),
    ]
    assert decoded.table["ts"].to_pylist() == [5, 9, 9, 5]
    assert decoded.dead["reason"].to_pylist() == [
        Reason.MISSING_FIELD,
        Reason.NOT_UTF8,
        Reason.WRONG_LENGTH,
    ]


def test_dead_letters_carry_the_record() -> None:
    decoded = decode(EVENTS, raw([b"\xff\x00", b"x" * (2**20 + 1)], b"k"))
    records = dead_letters(decoded.dead)
    assert [r.key for r in records] == [b"events/7/100", b"events/7/101"]
    first, second = (DeadLetter(**_fields(decode_one("dead-letter", r.value))) for r in records)
    assert (first.key, first.value, first.reason) == (b"k", b"\xff\x00", Reason.NOT_UTF8)
    assert (second.value, second.reason) == (None, Reason.TOO_LARGE)


def _fields(letter: Any) -> dict[str, Any]:
    return {name: getattr(letter, name) for name in letter.__struct_fields__}


def test_unknown_topics_are_named() -> None:
    with pytest.raises(ConfigError, match="'clicks' has no record schema"):
        decode("clicks", LOG_SCHEMA.empty_table())


def test_encode_and_decode_are_inverse() -> None:
    for topic, fields in GOOD.items():
        record = decode_one(topic, dumps(fields))
        assert decode_one(topic, encode(record)) == record


json_text = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def values(draw: st.DrawFn, topic: str) -> bytes | None:
    """A good record, changed in one field, cut, torn, or nothing of the kind."""
    base = dict(GOOD[topic])
    kind = draw(st.integers(0, 9))
    if kind < 4:
        base["extra"] = draw(json_text)
        if draw(st.booleans()):
            base["context"] = draw(st.dictionaries(st.text(), json_text, max_size=2))
        return json.dumps(base, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if kind < 7:
        base[draw(st.sampled_from(list(base)))] = draw(json_text)
        return json.dumps(base).encode()
    if kind == 7:
        whole = dumps(base)
        return whole[: draw(st.integers(0, len(whole)))]
    if kind == 8:
        whole = dumps(base)
        return whole[draw(st.integers(0, len(whole))) :]
    return draw(st.none() | st.binary(max_size=20))


def single_reason(topic: str, value: bytes) -> str:
    try:
        record = decode_one(topic, value)
        if key_of(topic, record) == KEYS[topic] and topic != ITEMS:
            check_time(record.ts, log_ms=9)
    except InvalidRecord as error:
        return error.reason
    return Reason.KEY_MISMATCH


@pytest.mark.parametrize("topic", list(GOOD))
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_batches_equal_single_records_and_lose_nothing(topic: str, data: st.DataObject) -> None:
    rows = data.draw(st.lists(values(topic), max_size=8))
    keys = data.draw(
        st.lists(
            st.sampled_from([KEYS[topic], None, b"other"]), min_size=len(rows), max_size=len(rows)
        )
        if data.draw(st.booleans())
        else st.just([KEYS[topic]] * len(rows))
    )
    whole = raw(rows, keys)
    together = decode(topic, whole)
    apart = [decode(topic, whole.slice(i, 1)) for i in range(len(rows))]
    empty = decode(topic, LOG_SCHEMA.empty_table())
    assert together.table == pa.concat_tables([empty.table, *(d.table for d in apart)])
    assert together.dead == pa.concat_tables([empty.dead, *(d.dead for d in apart)])
    offsets = together.table["offset"].to_pylist() + together.dead["offset"].to_pylist()
    assert sorted(offsets) == whole["offset"].to_pylist()
    for value, key, decoded in zip(rows, keys, apart, strict=True):
        if value:
            other = set() if key == KEYS[topic] else {Reason.KEY_MISMATCH}
            allowed = {single_reason(topic, value)} | other
            assert set(decoded.dead["reason"].to_pylist()) <= allowed
