"""A text encoder fine-tuned from the log on a real Ray cluster, and what goes on from it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ray_rec.config import RunConfig
from ray_rec.errors import ConfigError
from ray_rec.log.base import open_log
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.servable import WHITENING, tensors_under
from ray_rec.model.text import Whitening
from ray_rec.registry import Registry, Version
from ray_rec.training.stream import run_stream
from tests.model.encoders import make_encoder
from tests.training.shop import KINDS, PER_KIND, fill_visits

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

MakeConfig = Callable[..., RunConfig]


@pytest.fixture
def config(make_config: MakeConfig, tmp_path: Path) -> RunConfig:
    """Two workers teach a tiny BERT."""
    return make_config(
        "tuned",
        f"encoder.model={make_encoder(tmp_path / 'bert', 'bert')}",
        "encoder.max_tokens=8",
        "encoder.policy=adapter",
        "encoder.bottleneck=4",
        "learner.encoder_lr=0.02",
        "learner.warmup_steps=1",
        "training.num_workers=2",
        "training.cpus_per_worker=0.4",
        "training.gate_margin=100",
    )


def tuned(config: RunConfig, version: Version) -> RunConfig:
    """The configuration with the version's encoder, frozen."""
    folder = f"{config.registry}/encoders/{version.manifest.encoder}"
    return replace(config, encoder=replace(config.encoder, model=folder, policy="frozen"))


def texts(version: Version) -> list[str]:
    """The text of each row of a version, as the catalogue puts it together."""
    numbers = [int(item_id[1:]) for item_id in version.rows]
    named = [(KINDS[number // PER_KIND], number % PER_KIND) for number in numbers]
    return [f"{kind} number {number}. {kind}" for kind, number in named]


def test_a_tuned_encoder_is_one_full_version_with_its_texts_and_streams_on_frozen(
    config: RunConfig,
) -> None:
    report = run_stream(config, bounded=True)
    assert report.windows > 2
    registry = Registry(config.registry)
    assert registry.versions() == [report.version]
    version = registry.load(report.version or 0)
    assert version.manifest.kind == "full"

    after = tuned(config, version)
    encoder = TextEncoder(after.encoder)
    assert encoder.digest == version.manifest.encoder
    whitening = Whitening(**tensors_under(version.tensors, WHITENING))
    kept = version.tensors["items.text"][version.tensors["items.text_row"]]

    def far(encoder: TextEncoder) -> float:
        raw = torch.from_numpy(encoder.encode(texts(version)))
        return float((whitening.apply(raw) - kept).abs().mean())

    before = replace(config, encoder=replace(config.encoder, policy="frozen"))
    with pytest.raises(ConfigError, match=rf"frozen from .*/encoders/{encoder.digest}"):
        run_stream(before, bounded=True)
    pretrained = TextEncoder(before.encoder)
    assert far(encoder) < 0.02, "up to bfloat16, whose batches differ"
    assert far(pretrained) > 0.2

    with open_log(config.log) as log:
        fill_visits(log, 50, first=200)
    second = run_stream(after, bounded=True)
    later = registry.load(second.version or 0)
    assert later.manifest.parent == report.version
    assert later.manifest.encoder == version.manifest.encoder
    assert torch.equal(later.tensors["items.text"], version.tensors["items.text"])


def test_a_later_run_teaches_the_encoder_further(config: RunConfig) -> None:
    registry = Registry(config.registry, create=True)
    first = registry.load(run_stream(config, bounded=True).version or 0)
    with open_log(config.log) as log:
        fill_visits(log, 150, first=200)
    second = registry.load(run_stream(config, bounded=True).version or 0)
    assert second.manifest.encoder != first.manifest.encoder
    one, other = (TextEncoder(tuned(config, version).encoder) for version in (first, second))
    moved = [
        float((tensor - other.model.state_dict()[name]).abs().max())
        for name, tensor in one.model.state_dict().items()
        if ".adapter." in name
    ]
    assert 0 < max(moved) < 0.5, "it goes on from what was learned, not from the start"
