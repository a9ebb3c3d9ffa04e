"""The whole year of Complete Journey through the streaming path: how long, where the time goes.

    python -m benchmarks.replay_year [--quick]

Loads 1.47 million purchases, what was promoted beside them, and the catalogue into a SQLite log
(eight weeks with --quick), encodes its texts, and learns the log by one Ray Train worker with all
that a stream does. The peak memory is that of all processes together, pages that they share
counted once (PSS), sampled twice a second.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from benchmarks._journey import configure, load
from benchmarks._results import finish
from benchmarks.training import STAGES
from ray_rec.log.base import open_log
from ray_rec.log.window import Window
from ray_rec.training.embed import embed_catalogue
from ray_rec.training.planner import LEARNED_TOPICS
from ray_rec.training.stream import connect, run_stream


def main() -> None:
    """Run the benchmark and print its result as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the last eight weeks")
    arguments = parser.parse_args()
    weeks = (46, 53) if arguments.quick else (1, 53)
    with tempfile.TemporaryDirectory(prefix="ray-rec-year-") as folder:
        config = configure(folder)
        started = time.perf_counter()
        records = load(config, weeks)
        load_s = time.perf_counter() - started
        connect()
        with _peak_memory() as peak:
            started = time.perf_counter()
            texts = embed_catalogue(config).texts
            embed_s = time.perf_counter() - started
            windows: list[dict[str, Any]] = []
            started = time.perf_counter()
            report = run_stream(config, bounded=True, on_metrics=windows.append)
            learn_s = time.perf_counter() - started
        with open_log(config.log) as log:
            ends = {topic: log.latest(topic) for topic in LEARNED_TOPICS}
    ranges = {t: {p: (0, end) for p, end in parts.items()} for t, parts in ends.items()}
    assert report.records == Window(0, ranges).num_records
    result = {
        "load_s": load_s,
        "encode_s": embed_s,
        "learn_s": learn_s,
        "records_per_s": report.records / learn_s,
        "examples": sum(window["examples"] for window in windows),
        "windows": report.windows,
        "peak_memory_gib": peak[0] / 2**30,
        "stages_s": {n: round(sum(w[f"{n}_s"] for w in windows), 2) for n in STAGES},
        "join_s": sum(window.get("join_s", 0.0) for window in windows),
    }
    details = {"weeks": weeks, "records": records, "texts": texts}
    finish("replay_year", result, config.to_dict() | details, arguments.quick)


@contextmanager
def _peak_memory() -> Iterator[list[int]]:
    """Yield a list whose one number becomes the peak of this process and all that it started."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            peak[0] = max(peak[0], _memory())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _memory() -> int:
    me, total = psutil.Process(), 0
    for process in (me, *me.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # ended between the listing and the look
    return total


if __name__ == "__main__":
    main()
