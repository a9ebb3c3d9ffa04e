"""A local Ray cluster for the tests of this room, and a run's configuration in a fresh folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from ray_rec.config import RunConfig, load_config
from ray_rec.log.base import create_standard_topics, open_log
from ray_rec.training.stream import connect
from tests.training.shop import fill_items, fill_visits

SMALL = (
    "training.window_records=150",
    "training.publish_interval_s=0",
    "training.keep_versions=100",
    "training.cpus_per_worker=0.5",
    "learner.rows_per_step=16",
    "features.attribution_ms=60000",
    "features.lateness_ms=0",
    "features.held_out_share=0.1",
    "model.dim=16",
    "model.text_dim=32",
    "model.blocks=1",
)


@pytest.fixture(scope="package")
def cluster() -> Iterator[None]:
    connect(num_cpus=2)
    yield
    ray.shutdown()


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., RunConfig]:
    """Configurations that share one filled log; `name` tells registries and states apart."""
    url = f"sqlite:///{tmp_path}/log.db"
    with open_log(url) as log:
        create_standard_topics(log, partitions=2)
        fill_items(log)
        fill_visits(log, 200)

    def make(name: str = "run", *changes: str) -> RunConfig:
        places = (
            f"log={url}",
            f"registry={tmp_path}/{name}/registry",
            f"state_dir={tmp_path}/{name}/state",
        )
        return load_config(None, (*SMALL, *places, *changes), environ={})

    return make
