"""How fast a log becomes validated Arrow columns, beside Ray's own Kafka reader.

    python -m benchmarks.ingest [--quick] [--kafka kafka://host:port]

The same events lie in a Kafka topic of 4 partitions (a broker of deploy/kafka is started unless
one is given) and in a SQLite log. Each way reads and decodes all of them, in turn, several times;
the medians count:
`kafka_events_per_s`, `sqlite_events_per_s`: ray_rec's Ray Data source;
`read_kafka_events_per_s`: `ray.data.read_kafka`, then the same decoding in `map_batches`;
`read_kafka_tuned_events_per_s`: the same, not waiting a second where its queue is full;
`ratio_bare_loop`: our source against one process that consumes with librdkafka and decodes.
"""

import argparse
import importlib.util
import logging
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import confluent_kafka
import pyarrow as pa
import ray

from benchmarks._results import ROOT, finish
from ray_rec.events import EVENTS, Event, Record, decode, encode
from ray_rec.events.schema import LOG_SCHEMA
from ray_rec.log import EventLog, open_log
from ray_rec.log.source import read_log

PARTITIONS = 4
BATCH = 2_048
QUEUE_BACKOFF = {"fetch.queue.backoff.ms": 5}
"""How long librdkafka stops fetching when its queue is full: a second by default."""
FIRST_TS = 1_700_000_000_000


def main() -> None:
    """Run the benchmark and print its result as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a run of a minute or two")
    parser.add_argument("--kafka", help="URL of a broker without a topic `events`")
    arguments = parser.parse_args()
    num_events, repeats = (500_000, 3) if arguments.quick else (1_000_000, 5)
    with (
        tempfile.TemporaryDirectory(prefix="ray-rec-ingest-") as folder,
        _broker(arguments.kafka) as url,
        open_log(url) as kafka,
        open_log(f"sqlite:///{folder}/log.db") as sqlite,
    ):
        events = _events(num_events)
        fill = {"kafka": _fill_kafka(kafka, events), "sqlite": _fill(sqlite, events)}
        del events
        rates = _measure(_ways(kafka, sqlite, num_events), num_events, repeats)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    result = {
        "kafka_events_per_s": middle["kafka"],
        "sqlite_events_per_s": middle["sqlite"],
        "read_kafka_events_per_s": middle["read_kafka"],
        "read_kafka_tuned_events_per_s": middle["read_kafka_tuned"],
        "bare_loop_events_per_s": middle["bare_loop"],
        "ratio_read_kafka": middle["kafka"] / middle["read_kafka"],
        "ratio_bare_loop": middle["kafka"] / middle["bare_loop"],
    }
    config = {"events": num_events, "partitions": PARTITIONS, "repeats": repeats}
    details = {"all_events_per_s": rates, "fill_events_per_s": fill}
    finish("ingest", result, config | details, arguments.quick)


def _measure(
    ways: dict[str, Callable[[], int]], num_events: int, repeats: int
) -> dict[str, list[float]]:
    """Run the ways in turn, so that a busy moment of the machine meets them all."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for name, way in ways.items():
        print(f"warming up {name}", flush=True)
        way()
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            found = way()
            rates[name].append(num_events / (time.perf_counter() - start))
            print(f"{name}: {rates[name][-1]:,.0f} events/s", flush=True)
            assert found == num_events, f"{name} found {found} of {num_events} events"
    return rates


def _ways(kafka: EventLog, sqlite: EventLog, num_events: int) -> dict[str, Callable[[], int]]:
    ray.init("local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return {
        "kafka": lambda: _source(kafka),
        "sqlite": lambda: _source(sqlite),
        "read_kafka": lambda: _read_kafka(kafka, {}),
        "read_kafka_tuned": lambda: _read_kafka(kafka, QUEUE_BACKOFF),
        "bare_loop": lambda: _bare_loop(kafka, num_events),
    }


def _source(log: EventLog) -> int:
    ranges = {partition: (0, end) for partition, end in log.latest(EVENTS).items()}
    count: int = read_log(log.url, {EVENTS: ranges}).materialize().count()
    return count


def _read_kafka(log: EventLog, settings: dict[str, Any]) -> int:
    dataset = ray.data.read_kafka(
        EVENTS,
        bootstrap_servers=log.url.removeprefix("kafka://"),
        consumer_config={"fetch.wait.max.ms": 10} | settings,
    )
    decoded = dataset.map_batches(_decode_rows, batch_format="pyarrow", batch_size=16_384)
    count: int = decoded.materialize().count()
    return count


def _decode_rows(rows: Any) -> Any:
    names = {"ts": "timestamp"}
    columns: Any = [
        rows[names.get(field.name, field.name)].cast(field.type) for field in LOG_SCHEMA
    ]
    return decode(EVENTS, pa.Table.from_arrays(columns, schema=LOG_SCHEMA)).table


def _bare_loop(log: EventLog, num_events: int) -> int:
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": log.url.removeprefix("kafka://"),
            "group.id": "bare-loop",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 10,
        }
        | QUEUE_BACKOFF
    )
    consumer.assign([confluent_kafka.TopicPartition(EVENTS, p, 0) for p in range(PARTITIONS)])
    tables: list[pa.Table] = []
    found = 0
    while found < num_events:
        messages = consumer.consume(BATCH, timeout=0.05)
        if messages:
            tables.append(decode(EVENTS, _raw(messages)).table)
            found += tables[-1].num_rows
    consumer.close()
    return found


def _raw(messages: list[Any]) -> pa.Table:
    columns: list[list[Any]] = [
        [m.partition() for m in messages],
        [m.offset() for m in messages],
        [m.timestamp()[1] for m in messages],
        [m.key() for m in messages],
        [m.value() for m in messages],
    ]
    arrays = [
        pa.array(column, kind) for column, kind in zip(columns, LOG_SCHEMA.types, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=LOG_SCHEMA)


def _events(num_events: int) -> list[Record]:
    """Events of the usual size: 10 fields, some 200 bytes."""
    records = []
    for i in range(num_events):
        event = Event(
            event_id=f"event-{i}",
            user_id=f"user-{i * 7919 % 50_000}",
            item_id=f"item-{i * 104_729 % 90_000}",
            event_type=("view", "click", "cart", "purchase")[i % 4],
            ts=FIRST_TS + i,
            session_id=f"session-{i // 20}",
            request_id=f"request-{i // 10}",
            position=i % 10 + 1,
            price=1.0 + i % 500 / 100,
            quantity=1.0,
        )
        records.append(Record(event.user_id.encode(), encode(event), event.ts))
    return records


def _fill(log: EventLog, records: list[Record]) -> float:
    log.create_topics({EVENTS: PARTITIONS})
    start = time.perf_counter()
    for at in range(0, len(records), 50_000):
        log.append(EVENTS, records[at : at + 50_000])
    return len(records) / (time.perf_counter() - start)


def _fill_kafka(log: EventLog, records: list[Record]) -> float:
    """Fill with librdkafka, for speed; the partitioner is the one that ray_rec uses."""
    log.create_topics({EVENTS: PARTITIONS})
    start = time.perf_counter()
    servers = log.url.removeprefix("kafka://")
    settings = {"partitioner": "murmur2", "linger.ms": 20, "queue.buffering.max.messages": 10**6}
    producer = confluent_kafka.Producer({"bootstrap.servers": servers, **settings})
    for record in records:
        while True:
            try:
                producer.produce(EVENTS, record.value, record.key, timestamp=record.ts)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()
    return len(records) / (time.perf_counter() - start)


@contextmanager
def _broker(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    name = f"broker_{uuid.uuid4().hex}"
    spec = importlib.util.spec_from_file_location(name, ROOT / "deploy/kafka/broker.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.Broker(heap="1g") as broker:
        yield broker.url


if __name__ == "__main__":
    main()
