"""Serves here, or on the Ray cluster that RAY_ADDRESS names, until it is asked to stop."""

import os
from collections.abc import Callable
from typing import Any

import ray

from ray_rec.config import RunConfig
from ray_rec.log.base import check_topics, open_log
from ray_rec.training.interrupt import stop_on_signals
from ray_rec.training.stream import connect
from serve import launch

SECTIONS = ("log", "registry", "features", "serving", "encoder")


def app_args(config: RunConfig) -> dict[str, Any]:
    """Return the part of a run's configuration that the application takes."""
    plain = config.to_dict()
    return {name: plain[name] for name in SECTIONS}


def run(
    config: RunConfig,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until SIGINT or SIGTERM; `on_ready` is told the URL once it answers.

    Raises:
        ConfigError: the port is in use, or the configuration is wrong.
        LogError: the log does not answer, or lacks its topics.
    """
    launch.check_port(host, port)
    with open_log(config.log) as log:
        check_topics(log)
    os.environ.update(launch.environment(host=host))  # read by Serve's actors when Ray starts
    with stop_on_signals() as stop:
        connect()
        try:
            on_ready(launch.start(app_args(config), host=host, port=port))
            stop.wait()
        finally:
            launch.stop()
            ray.shutdown()
