"""The command line: fast help, one line for each error, exit codes, JSON where scripts read."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ray_rec.cli import main
from ray_rec.cli.main import exit_code
from ray_rec.errors import ConfigError, LogUnavailable, OffsetGap, RayRecError
from ray_rec.events.schema import Record
from ray_rec.log.base import create_standard_topics, open_log
from ray_rec.registry import Draft, Gate, Registry
from ray_rec.tracking.last import Last
from ray_rec.training.interrupt import stop_on_signals

Run = Callable[..., "Outcome"]


class Outcome:
    """What a run of `ray-rec` left: exit code, stdout, stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def ray_rec(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    """Run `ray-rec` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    # `demo` silences logging for its process; the tests after it share this one
    monkeypatch.setattr(logging.root.manager, "disable", logging.root.manager.disable)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ray-rec", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry of three versions: the second failed the gate, the third is a delta on it."""
    registry = Registry(str(tmp_path / "registry"), create=True)
    base = None
    for version in (1, 2, 3):
        draft = Draft(
            parent=version - 1 or None,
            windows=(version - 1, version - 1),
            offsets={"events": {0: 10 * version}},
            config={},
            encoder="e",
            metrics={"loss": 1 / version},
            gate=Gate(passed=version != 2, reason="worse" if version == 2 else ""),
            base=base if version == 3 else None,
        )
        tensors = {"w": torch.full((1,), float(version))}
        rows = [] if version == 3 else ["a"]
        base = registry.publish(version, tensors, rows, draft).as_base()
    return registry


COMMANDS = (
    "demo",
    "data",
    "data load complete-journey",
    "data import",
    "train",
    "stream",
    "serve",
    "backtest",
    "evaluate",
    "replay",
    "status",
    "models",
    "models list",
    "models rollback",
    "models release",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(ray_rec: Run, command: str) -> None:
    shown = ray_rec(*command.split(), "--help")
    assert shown.code == 0
    assert f"ray-rec {command}" in shown.out


def test_help_loads_none_of_the_large_libraries() -> None:
    check = (
        "import sys; from ray_rec.cli.main import app; "
        "print(*{'torch', 'ray', 'pyarrow', 'pandas', 'numpy'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert ran.stdout == "\n"


# bad input: one line on stderr that says what to do, no traceback, a code that means something


def assert_refused(outcome: Outcome, code: int, *words: str) -> None:
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert outcome.err.startswith("ray-rec: ")
    assert outcome.err.count("\n") == 1
    for word in words:
        assert word in outcome.err


def test_a_wrong_log_url(ray_rec: Run) -> None:
    refused = ray_rec("data", "load", "complete-journey", "--set", "log=mysql://x")
    assert_refused(refused, 2, "'mysql://x'", "sqlite:///", "kafka://")


def test_a_missing_broker(ray_rec: Run, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_text("")
    place = f"log=kafka://127.0.0.1:{free_port()}"
    assert_refused(ray_rec("data", "import", str(events), "--set", place), 3, "127.0.0.1")


def test_a_log_that_does_not_exist(ray_rec: Run) -> None:
    port = str(free_port())
    for command in (["serve", "--port", port], ["replay", "--topic", "events=x"]):
        assert_refused(ray_rec(*command, "--set", "log=sqlite:///no.db"), 3, "no.db")


def test_an_unknown_configuration_key(ray_rec: Run, tmp_path: Path) -> None:
    assert_refused(ray_rec("stream", "--set", "model.dims=3"), 2, "did you mean 'model.dim'?")
    path = tmp_path / "run.toml"
    path.write_text("[trainning]\n")
    assert_refused(ray_rec("stream", "-c", str(path)), 2, "did you mean 'training'?")
    assert_refused(ray_rec("stream", "-c", "none.toml"), 2, "cannot read", "none.toml")


def test_plans_that_are_not_there_and_an_unknown_way_with_gaps(ray_rec: Run) -> None:
    assert_refused(ray_rec("stream", "--plans", "old/plans"), 2, "/old/plans holds no plans")
    assert not Path("var/log.db").exists()
    refused = ray_rec("train", "--on-gap", "jump")
    assert refused.code == 2
    assert "'fail', 'skip'" in refused.err


@pytest.mark.parametrize("command", [["models", "list"], ["models", "rollback"], ["status"]])
def test_a_registry_that_is_not_one(ray_rec: Run, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("x")
    assert_refused(ray_rec(*command, "--set", "registry=notes"), 1, "/notes is not a registry")
    assert_refused(ray_rec(*command, "--set", "registry=none"), 1, "no registry at ", "/none:")


def test_a_port_in_use(ray_rec: Run, registry: Registry) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = ray_rec("serve", "--port", port, "--set", f"registry={registry.url}")
        assert_refused(refused, 2, f"127.0.0.1:{port}", "--port")
        assert_refused(ray_rec("demo", "--port", port), 2, f"127.0.0.1:{port}", "--port")


def test_wrong_usage(ray_rec: Run) -> None:
    for arguments in (["nonsense"], ["serve", "--port", "http"], ["data", "import"]):
        wrong = ray_rec(*arguments)
        assert wrong.code == 2
        assert "Traceback" not in wrong.err


def test_tables_that_do_not_exist(ray_rec: Run) -> None:
    assert_refused(ray_rec("data", "import", "none.parquet"), 1, "none.parquet")


def test_errors_and_their_codes() -> None:
    codes = {RayRecError: 1, OffsetGap: 1, ConfigError: 2, LogUnavailable: 3}
    for kind, code in codes.items():
        assert exit_code(kind("x")) == code


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# data


def test_tables_are_imported_whole_or_with_their_bad_rows_set_aside(
    ray_rec: Run, tmp_path: Path
) -> None:
    good = {"user_id": "u", "item_id": "i", "event_type": "view", "ts": 1_700_000_000_000}
    events = tmp_path / "events.jsonl"
    events.write_text(f"{json.dumps(good)}\n{json.dumps({**good, 'ts': -1})}\n")
    command = ("data", "import", str(events), "--set", "log=sqlite:///log.db")
    assert_refused(ray_rec(*command), 1, "row 2", "ts")

    taken = ray_rec(*command, "--skip-bad", "--json")
    assert taken.code == 0
    assert taken.err == ""
    report = json.loads(taken.out)
    assert report["counts"]["events"] == 1
    assert report["skipped"] == 1

    shown = ray_rec(*command, "--skip-bad")
    assert "skipped: 1\n" in shown.out


# models


def test_models_are_listed_rolled_back_and_released(ray_rec: Run, registry: Registry) -> None:
    option = ("--set", f"registry={registry.url}")
    listed = ray_rec("models", "list", *option)
    assert listed.code == 0
    lines = listed.out.splitlines()
    assert [line[0] for line in lines[:3]] == [" ", " ", "*"]
    assert "gate failed (worse)" in lines[1]
    assert [line[2:].split()[2] for line in lines[:3]] == ["full", "full", "delta"]
    assert all("  1 items  " in line for line in lines[:3])
    assert lines[3] == "3 versions, 3 in service"

    rolled = ray_rec("models", "rollback", "--json", *option)
    assert json.loads(rolled.out) == {"version": 1, "held": True}
    assert ray_rec("models", "list", *option).out.splitlines()[3] == (
        "3 versions, 1 in service, held by a rollback until `ray-rec models release`"
    )
    assert_refused(ray_rec("models", "rollback", "--to", "9", *option), 1, "no version 9")
    assert_refused(ray_rec("models", "rollback", "--to", "2", *option), 1, "did not pass the gate")

    assert ray_rec("models", "release", *option).out.splitlines() == ["version: 3", "held: False"]


def test_models_as_json(ray_rec: Run, registry: Registry) -> None:
    shown = json.loads(ray_rec("models", "list", "--json", "--set", f"registry={registry.url}").out)
    assert shown["current"] == {"version": 3, "held": False}
    assert [manifest["version"] for manifest in shown["versions"]] == [1, 2, 3]
    assert [manifest["kind"] for manifest in shown["versions"]] == ["full", "full", "delta"]
    assert shown["versions"][2]["base"]["number"] == 2
    assert shown["versions"][2]["offsets"] == {"events": {"0": 30}}


# status


def test_status_is_one_screen_or_one_json_object(
    ray_rec: Run, registry: Registry, tmp_path: Path
) -> None:
    places = (f"log=sqlite:///{tmp_path}/log.db", f"registry={registry.url}")
    options = [part for place in places for part in ("--set", place)]
    with open_log(f"sqlite:///{tmp_path}/log.db") as log:
        create_standard_topics(log, partitions=2)
        log.append("events", [Record(b"a", b"{}", 1)] * 40)
        log.append("dead-letter", [Record(b"events/0/1", b"?", 1)])
    Last(str(tmp_path / "var/state")).log(2, {"events_per_second": 12.5, "loss/recall": 0.25})

    shown = ray_rec("status", *options)
    assert (shown.code, shown.err) == (0, "")
    lines = [line.split(maxsplit=1)[0] for line in shown.out.splitlines() if line[:1].strip()]
    assert lines == ["log", "stream", "model", "state"]
    for words in (
        "lag of events     ",
        "1  (unreadable 1)",
        "events 12.5/s",
        "version 3, ",
        "passed the gate",
        "loss 0.25",
        "no checkpoint yet",
    ):
        assert words in shown.out
    assert len(shown.out.splitlines()) <= 24
    assert "no stream is running" not in shown.out

    told = json.loads(ray_rec("status", "--json", *options).out)
    lag = told["log"]["lag"]["events"]
    assert lag == {"0": 10, "1": 0}  # key "a" lies in partition 0, of which 30 are learned
    assert told["stream"]["window"] == 2
    assert told["model"]["quality"] == {"recall": {"loss": 0.25}}


def test_status_of_a_stream_that_ended_says_so(
    ray_rec: Run, registry: Registry, tmp_path: Path
) -> None:
    with open_log(f"sqlite:///{tmp_path}/var/log.db") as log:
        create_standard_topics(log, partitions=1)
    (tmp_path / "var/state").mkdir()
    (tmp_path / "var/state/last.json").write_text('{"at_ms": 1, "window": 2, "metrics": {}}')
    shown = ray_rec("status", "--set", f"registry={registry.url}")
    assert "ago: no stream is running, or it cannot write" in shown.out


# signals


def ask_twice() -> None:
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(5)


def test_the_first_signal_asks_and_the_second_breaks_off() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        ask_twice()
    assert signal.getsignal(signal.SIGINT) is before
