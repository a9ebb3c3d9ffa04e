"""The small shop with what a real log has as well: repeated and broken records."""

from pathlib import Path

from ray_rec.config import RunConfig, load_config
from ray_rec.events.schema import EVENTS, EXPOSURES, Record
from ray_rec.log.base import create_standard_topics, open_log
from tests.training.conftest import SMALL
from tests.training.shop import START_MS, fill_items, fill_visits

RECORDS_PER_WINDOW = 30
_REPEATED, _BROKEN = 10, 3

CHAOS = (
    f"training.window_records={RECORDS_PER_WINDOW}",
    "training.checkpoint_interval_s=0.5",
    "training.full_every=5",
    "training.keep_versions=1000000",
    "training.gate_margin=100",
)


def fill(log_url: str, windows: int) -> None:
    """Put records for about so many windows, a few of them twice and a few unusable."""
    with open_log(log_url) as log:
        create_standard_topics(log, partitions=2)
        fill_items(log)
        fill_visits(log, windows * RECORDS_PER_WINDOW // 2)
        fill_visits(log, _REPEATED)
        for number in range(_BROKEN):
            broken = Record(f"u{number}".encode(), b"{", START_MS)
            log.append(EVENTS, [broken])
            log.append(EXPOSURES, [broken])


def configure(log_url: str, place: Path, *changes: str) -> RunConfig:
    """Return the configuration of a run whose registry and state lie in `place`."""
    places = (f"log={log_url}", f"registry={place}/registry", f"state_dir={place}/state")
    return load_config(None, (*SMALL, *CHAOS, *places, *changes), environ={})
