"""A pretrained language model as an encoder of short texts; loaded from disk, never downloaded.

An encoder that has learned is a folder like any other, with two files more: `tuning.json` says how
it was tuned, `tuning.safetensors` holds what was trained. So it is opened as pretrained ones are.
`transformers` is imported where weights are loaded: many a process only asks an encoder's digest.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ray_rec.errors import ModelError
from ray_rec.model.config import EncoderConfig
from ray_rec.model.folder import check_new, model_folder
from ray_rec.model.pooling import pool
from ray_rec.model.tuning import Size, trained_parameters, tune, tuning_of

_PARTS = (".json", ".safetensors", ".txt")
_HOW, _WHAT = "tuning.json", "tuning.safetensors"
_IN_PLACE = ("full", "top-k")
"""Policies that learn nothing but the pretrained weights themselves."""

_log = logging.getLogger(__name__)


class TextEncoder:
    """Texts to vectors: any `AutoModel`, pooled over its tokens.

    Opening it reads no weights, only their digest; the first `encode` loads them.

    Raises:
        ModelError: the configured model is neither a folder with a model nor a package with one,
            or was tuned in another way than it is to learn on.
    """

    def __init__(self, config: EncoderConfig, device: torch.device | None = None) -> None:
        self.config = config
        self._device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._folder = model_folder(config.model)

    @property
    def digest(self) -> str:
        """sha256 (hex) over configuration, weights, tokenizer and our options, as they are now."""
        return self._digest(self.files().items()) if self.config.learns else self._opened_digest

    @cached_property
    def _opened_digest(self) -> str:
        return self._digest(self._read())

    def _digest(self, files: Iterable[tuple[str, bytes]]) -> str:
        pooling = "" if self.config.pooling == "mean" else self.config.pooling
        digest = hashlib.sha256(f"{self.config.max_tokens}{pooling}".encode())
        for name, data in files:
            digest.update(name.encode())
            digest.update(data)
        return digest.hexdigest()

    def _read(self) -> Iterator[tuple[str, bytes]]:
        for path in sorted(self._folder.glob("*")):
            if path.suffix in _PARTS:
                yield path.name, path.read_bytes()

    def files(self) -> dict[str, bytes]:
        """Return by name the files of a folder that opens as the encoder as it is now."""
        files = dict(self._read())
        if self.config.learns:
            learned = {k: v.detach().cpu().contiguous() for k, v in self.parameters().items()}
            files[_HOW] = msgspec.json.encode(tuning_of(self.config))
            files[_WHAT] = safetensors.torch.save(learned)
        return dict(sorted(files.items()))

    @cached_property
    def _loaded(self) -> tuple[Any, nn.Module]:
        from transformers import AutoModel, AutoTokenizer

        options = {"local_files_only": True}
        try:
            tokenizer = AutoTokenizer.from_pretrained(self._folder, **options)
            model = AutoModel.from_pretrained(self._folder, use_safetensors=True, **options)
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot load the encoder in {self._folder}: {error}") from error
        tokenizer.padding_side = "right"
        if tokenizer.pad_token is None:  # GPT-2's has none; what is padded is masked anyway
            tokenizer.pad_token = tokenizer.eos_token
        self._check(tokenizer, model)
        return tokenizer, self._tuned(model).eval().to(self._device)

    def _check(self, tokenizer: Any, model: Any) -> None:
        """Raise ModelError where the options ask what the model cannot do."""
        config, places = self.config, getattr(model.config, "max_position_embeddings", None)
        needed = config.max_tokens + config.prefix_length * (config.policy == "prefix")
        if places is not None and needed > places:
            raise ModelError(
                f"the encoder in {self._folder} has {places} places for tokens, encoder.max_tokens "
                f"(with a prefix) asks for {needed}; set it lower"
            )
        if config.pooling == "cls" and tokenizer.cls_token is None:
            raise ModelError(
                f"the encoder in {self._folder} has no first token that stands for a text; "
                "set encoder.pooling to mean or last-token"
            )

    def _tuned(self, model: nn.Module) -> nn.Module:
        """Apply the policy, and what an earlier run trained by it."""
        how, config = self._folder / _HOW, self.config
        model = self._as_it_was_tuned(model, how) if how.is_file() else tune(model, config)
        if config.learns:
            _log.info("%s", Size.of(model, config.policy))
        return model

    def _as_it_was_tuned(self, model: nn.Module, how: Path) -> nn.Module:
        try:
            tuning = msgspec.json.decode(how.read_bytes(), type=dict[str, Any])
            before = replace(self.config, **tuning)
            learned = safetensors.torch.load_file(self._folder / _WHAT)
        except (OSError, TypeError, msgspec.MsgspecError, safetensors.SafetensorError) as error:
            raise ModelError(f"cannot read what {self._folder} has learned: {error}") from error
        wanted = before if self.config.learns else replace(self.config, pooling=before.pooling)
        if wanted != self.config:
            said = ", ".join(f"encoder.{key}={value}" for key, value in tuning.items())
            raise ModelError(
                f"the encoder in {self._folder} was tuned with {said}; go on with these, or with "
                f"encoder.policy=frozen and encoder.pooling={before.pooling}"
            )
        model = tune(model, before)
        put(trained_parameters(model), learned)
        return model if self.config.learns else model.requires_grad_(False)

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return int(cast(Any, self._loaded[1]).config.hidden_size)

    @property
    def tokenizer(self) -> Any:
        """What cuts texts into tokens."""
        return self._loaded[0]

    @property
    def model(self) -> nn.Module:
        """The network, tuned."""
        return self._loaded[1]

    @property
    def size(self) -> Size:
        """How much of it learns."""
        return Size.of(self.model, self.config.policy)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that learn, by name; none of a frozen encoder."""
        return trained_parameters(self.model)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return float32 [len(texts), dim], in the order of `texts`.

        bfloat16 autocast: on a CPU with it three times as fast, and within 0.01 in cosine.
        """
        out = np.zeros((len(texts), self.dim), np.float32)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        size = self.config.batch_size
        for at in range(0, len(order), size):
            rows = order[at : at + size]  # texts of like length, to save padding
            with torch.inference_mode():
                out[rows] = self.vectors([texts[row] for row in rows]).cpu().numpy()
        return out

    def vectors(self, texts: Sequence[str], mixed: bool = True) -> Tensor:
        """Return float32 [len(texts), dim] on the device, through which gradients flow.

        `mixed`: whether under bfloat16 autocast. All texts are one batch.
        """
        tokens, mask = self.tokens(texts)
        return pool(self.hidden(tokens, mask, mixed), mask, self.config.pooling)

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the token ids of texts and which of them are there, int64 [n, longest] each."""
        tokenizer = self.tokenizer
        nothing = tokenizer.eos_token or ""  # a decoder's tokenizer would give no token at all
        made = tokenizer(
            [text if text.strip() else nothing for text in texts],
            padding=True,
            truncation=True,
            max_length=self.config.max_tokens,
            return_tensors="pt",
        ).to(self._device)
        return made["input_ids"], made["attention_mask"]

    def hidden(self, tokens: Tensor, mask: Tensor, mixed: bool = True) -> Tensor:
        """Return the vector of each token, float32 [n, tokens, dim], of what `tokens` gave."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=mixed):
            made = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state
        return cast(Tensor, made.float())

    def check_save(self, folder: Path) -> None:
        """Raise ModelError unless `save` can write there what this policy learns."""
        if self.config.policy not in _IN_PLACE:
            raise ModelError(
                f"encoder.policy={self.config.policy} learns beside the pretrained weights; to "
                f"write weights that hold what was learned, use {' or '.join(_IN_PLACE)}"
            )
        check_new(folder)

    def save(self, folder: Path) -> None:
        """Write a new folder that opens as pretrained ones do, with what was learned as weights."""
        self.check_save(folder)
        cast(Any, self.model).save_pretrained(folder)
        for name, data in self._read():
            if name not in {_HOW, "config.json"} and "safetensors" not in name:
                (folder / name).write_bytes(data)


def put(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    """Set parameters by name; ModelError unless the values are those of just these parameters."""
    shapes = {name: p.shape for name, p in parameters.items()}
    if shapes != {name: value.shape for name, value in values.items()}:
        differing = sorted(parameters.keys() ^ values.keys()) or sorted(shapes)
        raise ModelError(
            f"what the encoder learned is for other parameters (as {differing[0]}); use the "
            "configuration that it was tuned with"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
