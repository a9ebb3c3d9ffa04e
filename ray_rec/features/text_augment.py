"""Other wordings of item texts, for an encoder that learns: words left out, synonyms, translation.

What becomes of a text follows from a hash of the text, its words' places and the number of the
draw: no clock, no state. A share of 0 leaves every text as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import pyarrow as pa

from ray_rec.errors import ConfigError, DataError
from ray_rec.features.arrays import (
    Float64,
    Int64,
    UInt64,
    hash_strings,
    mix,
    ragged_ranges,
    starts_of,
)

_LEFT_OUT, _REPLACED, _WHICH, _TRANSLATED = range(4)
"""Tell draws of different kinds over the same text apart."""


class TextTransform(Protocol):
    """Texts in other words, one for one and in order; other draws give other words."""

    def __call__(self, texts: Sequence[str], draw: int) -> list[str]:
        """Return the `draw`-th wording of each text."""


class Translate(Protocol):
    """Texts in another language, one for one and in order."""

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """Return the translations."""


@dataclass(frozen=True)
class WordDropout:
    """Leaves out each word with the chance `share`, and never all of a text's.

    >>> WordDropout(0.5)(["green tea in bags", "tea"], draw=1)
    ['tea bags', 'tea']
    """

    share: float

    def __post_init__(self) -> None:
        """Check the share."""
        check_share("word dropout", self.share)

    def __call__(self, texts: Sequence[str], draw: int) -> list[str]:
        """Return the words that stay."""
        out = []
        for text, (words, drawn) in zip(texts, _words(texts, draw, _LEFT_OUT), strict=True):
            stays = drawn >= self.share
            if len(words):
                stays[np.argmax(drawn)] = True
            kept = [word for word, stay in zip(words, stays.tolist(), strict=True) if stay]
            out.append(text if stays.all() else " ".join(kept))
        return out


@dataclass(frozen=True)
class Synonyms:
    """Puts a synonym in the place of each word that has one, with the chance `share`.

    Args:
        known: a word in small letters -> what may stand for it, at least one.
        share: the chance.

    >>> Synonyms({"sofa": ["couch"]}, share=1.0)(["Sofa bed"], draw=0)
    ['couch bed']
    """

    known: Mapping[str, Sequence[str]]
    share: float

    def __post_init__(self) -> None:
        """Check the share."""
        check_share("synonym replacement", self.share)

    def __call__(self, texts: Sequence[str], draw: int) -> list[str]:
        """Return the texts with some words replaced."""
        chances, which = _words(texts, draw, _REPLACED), _words(texts, draw, _WHICH)
        out = []
        for text, (words, chance), (_, place) in zip(texts, chances, which, strict=True):
            new = [
                self._instead(word, at) if drawn < self.share else word
                for word, drawn, at in zip(words, chance.tolist(), place.tolist(), strict=True)
            ]
            out.append(text if new == words else " ".join(new))
        return out

    def _instead(self, word: str, at: float) -> str:
        """Return the synonym at a place from 0 to below 1 among a word's."""
        others = self.known.get(word.lower(), (word,))
        return others[min(int(at * len(others)), len(others) - 1)]


@dataclass(frozen=True)
class BackTranslation:
    """Sends a `share` of the texts to another language and back; an empty answer changes nothing.

    `ray_rec.model.translation.Translator` is a way there or back by a model on this disk.
    """

    there: Translate
    back: Translate
    share: float

    def __post_init__(self) -> None:
        """Check the share."""
        check_share("back-translation", self.share)

    def __call__(self, texts: Sequence[str], draw: int) -> list[str]:
        """Return the texts with some of them translated there and back."""
        chance = _chance(_hashes(texts), np.zeros(len(texts), np.int64), draw, _TRANSLATED)
        out, chosen = list(texts), np.flatnonzero(chance < self.share).tolist()
        if chosen:
            returned = self.back(self.there([texts[at] for at in chosen]))
            for at, text in zip(chosen, returned, strict=True):
                out[at] = text.strip() or texts[at]
        return out


@dataclass(frozen=True)
class InTurn:
    """Several transforms, one after the other."""

    transforms: Sequence[TextTransform]

    def __call__(self, texts: Sequence[str], draw: int) -> list[str]:
        """Return what the last makes of what the others made."""
        out = list(texts)
        for transform in self.transforms:
            out = transform(out, draw)
        return out


@dataclass(frozen=True)
class TextAugment:
    """What of words is changed while an encoder learns."""

    word_dropout: float = 0.0
    """Chance of a word to be left out."""
    synonyms: str = ""
    """File of synonyms (see `read_synonyms`), where every worker finds it; none if empty."""
    synonym_share: float = 0.25
    """Chance of a word that has synonyms to be replaced by one."""

    def __post_init__(self) -> None:
        """Check the shares."""
        check_share("word dropout", self.word_dropout)
        check_share("synonym replacement", self.synonym_share)

    def transform(self) -> InTurn:
        """Return what does it; DataError where the file is none of synonyms."""
        out: list[TextTransform] = []
        if self.synonyms:
            out.append(Synonyms(read_synonyms(Path(self.synonyms)), self.synonym_share))
        if self.word_dropout:
            out.append(WordDropout(self.word_dropout))
        return InTurn(out)


def read_synonyms(path: Path) -> dict[str, list[str]]:
    """Read a JSON object of lists: a word, and what may stand for it.

    Raises:
        DataError: the file cannot be read, is no such object, or has a word without a synonym.
    """
    try:
        known = msgspec.json.decode(path.read_bytes(), type=dict[str, list[str]])
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(
            f"cannot read synonyms from {path} ({error}); "
            'give a JSON object of lists, as {"sofa": ["couch"]}'
        ) from error
    for word, others in known.items():
        if not others:
            raise DataError(f"{path} has no synonym for {word!r}; name one, or leave the word out")
    return {word.lower(): others for word, others in known.items()}


def check_share(what: str, share: float) -> None:
    """Raise ConfigError for what is no chance."""
    if not 0 <= share <= 1:
        raise ConfigError(f"the share of {what} is {share}; it must be within 0..1")


def _words(texts: Sequence[str], draw: int, kind: int) -> list[tuple[list[str], Float64]]:
    """Return the words of each text, each with a number from 0 to below 1."""
    split = [text.split() for text in texts]
    lengths = np.array([len(words) for words in split], np.int64)
    place = ragged_ranges(np.zeros(len(split), np.int64), lengths)
    chance = _chance(np.repeat(_hashes(texts), lengths), place, draw, kind)
    bounds = pairwise(starts_of(lengths).tolist())
    return [(words, chance[low:high]) for words, (low, high) in zip(split, bounds, strict=True)]


def _hashes(texts: Sequence[str]) -> UInt64:
    return hash_strings(pa.array(list(texts), pa.string()))


def _chance(text: UInt64, place: Int64, draw: int, kind: int) -> Float64:
    """Return numbers from 0 to below 1, one for each place in a text."""
    told = [np.full(len(text), number, np.int64) for number in (draw, kind)]
    drawn: Float64 = (mix(text, place, *told) >> np.uint64(11)) / 2.0**53
    return drawn
