"""The whole loop on one machine: load real data, train, serve, stream, until Ctrl-C.

Everything lives in the folders of the configuration; started again, it goes on where it stopped.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import msgspec
import ray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from ray_rec.config import RunConfig
from ray_rec.datasets import complete_journey
from ray_rec.events.schema import EVENTS
from ray_rec.log.base import create_standard_topics, open_log
from ray_rec.registry.store import Store
from ray_rec.training.embed import embed_catalogue
from ray_rec.training.interrupt import stop_on_signals
from ray_rec.training.status import status
from ray_rec.training.stream import connect, run_stream
from serve import launch

RECENT_WEEKS = (46, 53)
OLDER_WEEKS = (1, 45)
SHOPPER = "1228"
NOTES = "demo.json"
PATIENCE_S = 90.0
CONFIG = Path(__file__).with_name("demo.toml")
"""What the demo runs with where no configuration is given."""

_SHARE = {"num_cpus": 0.2}


@dataclass(frozen=True)
class _Loaded:
    """What is in the log: when its data ends, and how many of the older weeks were added."""

    end_ms: int
    older: int


def run(config: RunConfig, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Run the demo until SIGINT or SIGTERM; what was learned is kept before it returns.

    Raises:
        ConfigError: the port is in use.
        DataError: the demo's data is not installed.
    """
    launch.check_port(host, port)
    os.environ.update(launch.environment(host=host))  # before Ray starts
    console, started = Console(), time.monotonic()
    with stop_on_signals() as stop, _progress(console) as progress:
        _load(config, progress)
        _start_ray(config, progress)
        try:
            with _trainer(config, stop, progress):
                url = _serve(config, host, port, progress)
                if _wait_until_ready(config, url, started, stop, progress):
                    _greet(console, url)
                    _add_older_weeks(config, stop, progress)
                    stop.wait()
                console.print("[dim]stopping: the last window is learned and kept[/]")
        finally:
            launch.stop()
            ray.shutdown()


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("[dim]{task.fields[note]}"),
        console=console,
        refresh_per_second=4,
    )


def _bars(progress: Progress, what: str) -> Callable[[str, int, int], None]:
    """Return a progress callback with one bar a topic."""
    tasks: dict[str, Any] = {}

    def tell(topic: str, done: int, total: int) -> None:
        if topic not in tasks:
            tasks[topic] = progress.add_task(f"{what} {topic}", note="")
        progress.update(tasks[topic], completed=done, total=total)

    return tell


def _load(config: RunConfig, progress: Progress) -> None:
    """Put the newest weeks into the log, moved in time so that the data ends now."""
    notes = Store(config.state_dir)
    with open_log(config.log) as log:
        create_standard_topics(log, config.partitions)
        if notes.read(NOTES) is None:
            end_ms = int(time.time() * 1000)
            complete_journey.load(log, RECENT_WEEKS, end_ms, _bars(progress, "load"))
            _note(notes, _Loaded(end_ms, 0))


def _add_older_weeks(config: RunConfig, stop: threading.Event, progress: Progress) -> None:
    """Append the rest of the year, the next week whenever the last one is learned, until `stop`.

    So a click waits for one week of old purchases at most before it is learned.
    """
    notes = Store(config.state_dir)
    loaded = msgspec.json.decode(notes.read(NOTES) or b"", type=_Loaded)
    last = OLDER_WEEKS[1]
    task = progress.add_task("learn older weeks", total=last, completed=loaded.older, note="")
    with open_log(config.log) as log:
        while loaded.older < last and not stop.wait(1.0):
            if sum(status(config).log.lag[EVENTS].values()):
                continue
            week = loaded.older + 1
            complete_journey.load(log, (week, week), loaded.end_ms, items=False)
            loaded = _Loaded(loaded.end_ms, week)
            _note(notes, loaded)
            progress.update(task, completed=week)


def _note(notes: Store, loaded: _Loaded) -> None:
    notes.write(NOTES, msgspec.json.encode(loaded))


def _start_ray(config: RunConfig, progress: Progress) -> None:
    task = progress.add_task("start Ray", total=1, note="")
    connect()
    progress.update(task, completed=1)
    embed_catalogue(config, progress=_bars(progress, "encode"))


@contextmanager
def _trainer(config: RunConfig, stop: threading.Event, progress: Progress) -> Iterator[None]:
    """Run the stream beside what happens inside; its failure stops the demo and is raised."""
    failure: list[BaseException] = []
    task = progress.add_task("learn windows", total=None, note="starting the workers")

    def tell(metrics: dict[str, Any]) -> None:
        note = f"{metrics['records']} records, recall loss {metrics.get('recall_loss', 0):.2f}"
        progress.update(task, advance=1, note=note)

    def learn() -> None:
        try:
            run_stream(config, stop=stop, on_metrics=tell)
        except BaseException as error:  # raised again by the demo's thread
            failure.append(error)
        finally:
            stop.set()

    thread = threading.Thread(target=learn, name="stream")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if failure:
            raise failure[0]


def _serve(config: RunConfig, host: str, port: int, progress: Progress) -> str:
    task = progress.add_task("start serving", total=1, note="")
    shares = {"recommender_scaling": _SHARE, "encoder_scaling": _SHARE}
    url = launch.start({**config.to_dict(), **shares}, host=host, port=port)
    progress.update(task, completed=1, note=url)
    return url


def _wait_until_ready(
    config: RunConfig, url: str, started: float, stop: threading.Event, progress: Progress
) -> bool:
    """Wait for a version that knows the recent weeks, or has learned for a while.

    False when the demo is stopped before.
    """
    task = progress.add_task("first version", total=1, note="")
    while not stop.wait(0.2):
        if httpx.get(f"{url}/readyz").status_code != HTTPStatus.OK:
            continue
        late = time.monotonic() - started > PATIENCE_S
        if late or not sum(status(config).log.lag[EVENTS].values()):
            progress.update(task, completed=1)
            return True
    return False


def _greet(console: Console, url: str) -> None:
    """Ask for one known shopper over HTTP, print what comes and where to go on."""
    body = {"user_id": SHOPPER, "num": 5, "details": True}
    answer = httpx.post(f"{url}/v1/recommendations", json=body).raise_for_status().json()
    table = Table(title=f"for shopper {SHOPPER} (model version {answer['model_version']})")
    for name in ("position", "item", "score", "p(purchase)"):
        table.add_column(name)
    for item in answer["items"]:
        name = item.get("title") or item["item_id"]
        table.add_row(str(item["position"]), name, f"{item['score']:.2f}", f"{item['p_click']:.3f}")
    console.print(table)
    console.print(f"shop page and API: [bold]{url}[/]   (Ctrl-C ends, the next run continues)")
