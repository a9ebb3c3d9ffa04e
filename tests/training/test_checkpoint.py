"""Checkpoints: whole or not there, the newest few, and any of them a place to go on from."""

import logging
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from ray_rec.config import load_config
from ray_rec.errors import ConfigError, StateError
from ray_rec.model.encoder import TextEncoder
from ray_rec.registry import Base
from ray_rec.training.checkpoint import Checkpoints, TrainerCheckpoint, check_encoder
from ray_rec.training.workers import Workers
from tests.model import toy
from tests.model.encoders import make_encoder


def made(number: int, held_out: pa.Table | None = None) -> TrainerCheckpoint:
    weights = {"model.w": torch.full((3,), float(number)), "steps": torch.tensor(number)}
    return TrainerCheckpoint(number, weights, ["a", "b"], held_out, Base(number - 1, "ab", 2))


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(f"{tmp_path}/checkpoints", keep=2)


def test_what_is_read_is_what_was_written(checkpoints: Checkpoints) -> None:
    rows = toy.table(toy.ring_rows(3, 0))
    checkpoints.write(made(7, rows))
    read = checkpoints.read(7)
    assert read.number == 7
    assert read.published == Base(6, "ab", 2)
    assert read.rows == ["a", "b"]
    assert read.held_out == rows
    assert read.learner["model.w"].tolist() == [7.0, 7.0, 7.0]
    assert int(read.learner["steps"]) == 7


def test_the_newest_are_kept_and_each_can_be_read(checkpoints: Checkpoints) -> None:
    for number in (3, 9, 12):
        checkpoints.write(made(number))
    assert checkpoints.numbers() == [9, 12]
    assert checkpoints.read(9).number == 9
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.number == 12
    older = checkpoints.newest(before=12)
    assert older is not None
    assert older.number == 9
    assert checkpoints.newest(before=9) is None


@pytest.mark.parametrize(
    ("known", "at_most", "wanted", "asked"),
    [
        ({9, 12}, None, 12, [12]),
        ({9, 12}, 11, 9, [9]),
        ({9}, None, 9, [12, 9]),
        (set(), None, None, [12, 9, 0]),
    ],
)
def test_workers_go_on_from_the_newest_that_has_a_state(
    known: set[int],
    at_most: int | None,
    wanted: int | None,
    asked: list[int],
    checkpoints: Checkpoints,
) -> None:
    for number in (9, 12):
        checkpoints.write(made(number))
    heard: list[int] = []

    def resume(number: int) -> bool:
        heard.append(number)
        return number in known

    kept = checkpoints.agreed(Workers(), resume, at_most)
    assert (None if kept is None else kept.number) == wanted
    assert heard == asked


def test_going_on_with_another_encoder_is_refused(tmp_path: Path) -> None:
    """With the one that was opened, or as it had learned, it is not."""
    folders = [make_encoder(tmp_path / str(seed), "bert", seed) for seed in range(3)]
    places = f"state_dir={tmp_path}/state", f"registry={tmp_path}/registry"
    one, tuned, other = (
        load_config(None, (*places, f"encoder.model={folder}", "encoder.max_tokens=8"), environ={})
        for folder in folders
    )
    check_encoder(other)  # there is no checkpoint yet
    digests = [TextEncoder(config.encoder).digest for config in (one, tuned)]
    for number, known in ((4, ()), (5, (digests[0], digests[0])), (6, tuple(digests))):
        kept = replace(made(number), encoders=known)
        Checkpoints(f"{tmp_path}/state/checkpoints", keep=3).write(kept)
        assert Checkpoints.of(one).read(number).encoders == known
    for config in (one, tuned):
        check_encoder(config)
    with pytest.raises(
        ConfigError, match=rf"checkpoint 6 .*{digests[1][:12]}; .*frozen from .*own"
    ):
        check_encoder(other)
    with pytest.raises(ConfigError, match=r"checkpoint 5 .* go on with the section as it was, or"):
        check_encoder(tuned, at_most=5)
    longer = replace(one, encoder=replace(one.encoder, max_tokens=9))
    with pytest.raises(ConfigError, match="checkpoint 6"):
        check_encoder(longer)
    check_encoder(other, at_most=4)  # of an earlier release: not known


def test_one_that_is_there_is_never_rewritten(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.write(made(3))
    files = {p: p.read_bytes() for p in sorted((tmp_path / "checkpoints").rglob("*.*"))}
    checkpoints.write(made(3))
    assert {p: p.read_bytes() for p in files} == files


@pytest.mark.parametrize("name", ["learner.safetensors", "rows.arrow"])
def test_a_damaged_one_is_passed_over_with_a_word(
    name: str, checkpoints: Checkpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (3, 9):
        checkpoints.write(made(number))
    file = tmp_path / "checkpoints" / f"{9:012d}" / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StateError, match=f"{name}.*remove"):
        checkpoints.read(9)
    with caplog.at_level(logging.ERROR):
        newest = checkpoints.newest()
    assert newest is not None
    assert newest.number == 3
    assert "trying an older checkpoint" in caplog.text


def test_one_without_its_manifest_is_not_there(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.write(made(3))
    (tmp_path / "checkpoints" / f"{3:012d}" / "manifest.json").unlink()
    assert checkpoints.numbers() == []
    assert checkpoints.newest() is None
    with pytest.raises(StateError, match="no whole checkpoint 3"):
        checkpoints.read(3)
    checkpoints.write(made(3))
    assert checkpoints.numbers() == [3]
