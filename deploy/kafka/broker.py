"""One real Apache Kafka broker for tests and trials: a KRaft node on free ports of this machine.

    python deploy/kafka/broker.py        # runs until Ctrl-C and prints its URL (`make kafka`)

Needs Java 17 and, the first time, Maven; independent of ray_rec. The data lies in a temporary
folder that goes when the broker stops; `kill` and `restart` keep it, to rehearse crashes.
"""

import atexit
import base64
import hashlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

HERE = Path(__file__).resolve().parent
MIN_JAVA = 17
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "message.max.bytes": str(16 << 20),
    "log.cleaner.backoff.ms": "200",
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "2000",  # a killed broker may come back after this
    "num.network.threads": "2",
    "num.io.threads": "4",
}


class BrokerError(RuntimeError):
    """The broker cannot be fetched, started or reached."""


def missing() -> list[str]:
    """Return what this machine lacks to run a broker, in words; empty when it can."""
    lacks = []
    if (version := _java_version()) < MIN_JAVA:
        seen = f"found {version}" if version else "`java` not found"
        lacks.append(f"Java {MIN_JAVA} or newer ({seen})")
    if not _jars().is_dir() and shutil.which("mvn") is None:
        lacks.append("Maven (`mvn` not found)")
    return lacks


class Broker:
    """A broker process and its data; `with Broker() as broker: broker.url`."""

    def __init__(self, settings: Mapping[str, str] | None = None, heap: str = "512m") -> None:
        self._settings = {**SETTINGS, **(settings or {})}
        self._heap = heap
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def bootstrap(self) -> str:
        """The address that Kafka clients connect to."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The address as a log URL."""
        return f"kafka://{self.bootstrap}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Fetch what is missing, format storage, start, and wait until the broker answers."""
        if lacks := missing():
            raise BrokerError(f"a Kafka broker needs {' and '.join(lacks)}")
        jars = fetch_jars()
        self._folder = Path(tempfile.mkdtemp(prefix="kafka-broker-"))
        atexit.register(self.stop)
        self.port, controller = _free_ports()
        self._write_settings(controller)
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").lstrip("-")
        tool = ["kafka.tools.StorageTool", "format", "--standalone", "-t", cluster.ljust(22, "A")]
        done = subprocess.run(
            [*_java(jars, "128m"), *tool, "-c", str(self._folder / "server.properties")],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BrokerError(f"formatting storage failed:\n{done.stdout}{done.stderr}")
        self._launch(jars)

    def stop(self) -> None:
        """Stop the broker and delete its data; does nothing when it is not running."""
        self._end(signal.SIGTERM)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        atexit.unregister(self.stop)

    def kill(self) -> None:
        """Kill the broker at once, as a power cut would; `restart` brings it back."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the broker if it runs and start it again with the same data and port."""
        self._end(signal.SIGTERM)
        self._launch(fetch_jars())

    def _write_settings(self, controller: int) -> None:
        folder = self._data()
        settings = self._settings | {
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
            "log.dirs": str(folder / "data"),
        }
        text = "".join(f"{key}={value}\n" for key, value in settings.items())
        (folder / "server.properties").write_text(text)

    def _launch(self, jars: Path) -> None:
        folder = self._data()
        with (folder / "broker.log").open("ab") as output:
            self._process = subprocess.Popen(
                [*_java(jars, self._heap), "kafka.Kafka", str(folder / "server.properties")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (folder / "broker.log").read_text(errors="replace")[-3000:]
                raise BrokerError(f"the broker did not start:\n{tail}")
            time.sleep(0.05)

    def _end(self, sign: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(sign)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _data(self) -> Path:
        if self._folder is None:
            raise BrokerError("the broker was never started, or was stopped and its data deleted")
        return self._folder


def fetch_jars() -> Path:
    """Return the folder of the broker's jars; Maven fetches them once for each pom.xml."""
    jars = _jars()
    if jars.is_dir():
        return jars
    part = jars.with_name(f"{jars.name}.{uuid.uuid4().hex[:8]}")
    command = ["mvn", "-q", "-B", "-ntp", "-f", str(HERE / "pom.xml")]
    command += ["dependency:copy-dependencies", "-DincludeScope=runtime"]
    done = subprocess.run(
        [*command, f"-DoutputDirectory={part}"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BrokerError(f"Maven could not fetch Kafka:\n{(done.stdout + done.stderr)[-3000:]}")
    try:
        part.rename(jars)
    except OSError:  # another process was faster
        shutil.rmtree(part)
    return jars


def _jars() -> Path:
    digest = hashlib.sha256((HERE / "pom.xml").read_bytes()).hexdigest()[:12]
    return HERE / "target" / f"jars-{digest}"


def _java(jars: Path, heap: str) -> list[str]:
    # This folder comes first for its log4j2.properties.
    return ["java", f"-Xmx{heap}", "-XX:+UseSerialGC", "-cp", f"{HERE}:{jars}/*"]


def _java_version() -> int:
    java = shutil.which("java")
    if java is None:
        return 0
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(\d+)', done.stderr)
    return int(found[1]) if found else 0


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def _answers(port: int) -> bool:
    """Ask for the API versions, the first request of every Kafka client."""
    request = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            return len(connection.recv(8)) == 8
    except OSError:
        return False


def main() -> int:
    """Run a broker until Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Broker() as broker:
            sys.stdout.write(f"Kafka answers at {broker.url} (Ctrl-C stops it)\n")
            sys.stdout.flush()
            signal.pause()
    except BrokerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
