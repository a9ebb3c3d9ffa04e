"""`python -m jobs.adapt` on a log's catalogue: one command from texts to a folder."""

import json
import sys
from pathlib import Path

import pytest

from jobs import adapt
from ray_rec.errors import ModelError
from ray_rec.log.base import create_standard_topics, open_log
from ray_rec.model.config import EncoderConfig
from ray_rec.model.encoder import TextEncoder
from tests.model.encoders import make_encoder
from tests.training.shop import fill_items


def test_one_command_writes_an_encoder_that_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, out = f"sqlite:///{tmp_path}/log.db", tmp_path / "adapted"
    with open_log(url) as log:
        create_standard_topics(log, 1)
        fill_items(log)
    (tmp_path / "words.json").write_text('{"number": ["item"]}')
    tiny = make_encoder(tmp_path / "tiny", "bert")
    command = ["adapt", "--out", str(out), "--set", f"log={url}", "--set", f"encoder.model={tiny}"]
    command += ["--set", "encoder.max_tokens=8", "--batch-size", "16", "--lr", "0.01"]
    command += ["--synonyms", str(tmp_path / "words.json"), "--word-dropout", "0.1"]
    monkeypatch.setattr(sys, "argv", command)
    assert adapt.main() == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["learned"], report["held_out"]) == (46, 2)
    assert report["after"].keys() == report["before"].keys() == {"masked", "contrastive"}
    opened = TextEncoder(EncoderConfig(str(out), max_tokens=8))
    assert opened.digest == report["encoder"]
    assert opened.digest != TextEncoder(EncoderConfig(str(tiny), max_tokens=8)).digest
    with pytest.raises(ModelError, match="there already"):  # before anything is learned
        adapt.main()
