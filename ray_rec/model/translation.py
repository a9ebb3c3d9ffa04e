"""Translation by a sequence-to-sequence model on this disk; nothing is downloaded."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from ray_rec.errors import ModelError

_BATCH_TEXTS = 32


class Translator:
    """Texts through one model, greedily, so that the same text is always translated alike.

    Args:
        folder: of a model that `AutoModelForSeq2SeqLM` opens, with its tokenizer (as MarianMT's).
        max_tokens: of a text, and of its translation.

    Raises:
        ModelError: the folder has no such model; when the first text is translated.
    """

    def __init__(self, folder: Path, max_tokens: int = 64) -> None:
        self._folder, self._max_tokens = folder, max_tokens

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        try:
            tokenizer = AutoTokenizer.from_pretrained(self._folder, local_files_only=True)
            model = AutoModelForSeq2SeqLM.from_pretrained(self._folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"cannot load a translation model from {self._folder} ({error}); "
                "name a folder with config.json, weights and tokenizer of one"
            ) from error
        return tokenizer, model.eval()

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> list[str]:
        """Return the translations, in the order of `texts`."""
        tokenizer, model = self._loaded
        out: list[str] = []
        for at in range(0, len(texts), _BATCH_TEXTS):
            tokens = tokenizer(
                list(texts[at : at + _BATCH_TEXTS]),
                padding=True,
                truncation=True,
                max_length=self._max_tokens,
                return_tensors="pt",
            )
            made = model.generate(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                max_new_tokens=self._max_tokens,
                do_sample=False,
                num_beams=1,
            )
            out += cast(list[str], tokenizer.batch_decode(made, skip_special_tokens=True))
        return out
