"""Texts in other words: what may change, how often, and that chance is a hash."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_rec.errors import ConfigError, DataError
from ray_rec.features.text_augment import (
    BackTranslation,
    InTurn,
    Synonyms,
    TextTransform,
    WordDropout,
    read_synonyms,
)

KNOWN = {"sofa": ["couch", "settee"], "tea": ["infusion"]}
MAKERS: dict[str, Callable[[float], TextTransform]] = {
    "word-dropout": WordDropout,
    "synonyms": lambda share: Synonyms(KNOWN, share),
    "back-translation": lambda share: BackTranslation(Reversed(), Reversed(), share),
}
WORDS = st.lists(st.sampled_from(["sofa", "tea", "green", "of"]), max_size=6).map(" ".join)
texts = st.lists(st.one_of(WORDS, st.text(max_size=8)), max_size=5)
shares, draws = st.floats(0, 1), st.integers(0, 1 << 40)


@dataclass
class Reversed:
    """A language whose sentences go backwards; it remembers what it was asked."""

    asked: list[str] = field(default_factory=list)

    def __call__(self, texts: Sequence[str]) -> list[str]:
        self.asked += texts
        return [" ".join(reversed(text.split(" "))) for text in texts]


@given(texts, st.sampled_from(sorted(MAKERS)), draws)
def test_a_share_of_nothing_changes_nothing(given_: list[str], name: str, draw: int) -> None:
    assert MAKERS[name](0.0)(given_, draw) == given_


@given(texts, st.sampled_from(sorted(MAKERS)), shares, draws)
def test_a_text_does_not_depend_on_its_neighbours(
    given_: list[str], name: str, share: float, draw: int
) -> None:
    transform = MAKERS[name](share)
    together = transform(given_, draw)
    assert together == [transform([text], draw)[0] for text in given_]


@given(texts, shares, draws)
def test_words_left_out_leave_the_others_in_order(
    given_: list[str], share: float, draw: int
) -> None:
    for text, made in zip(given_, WordDropout(share)(given_, draw), strict=True):
        left = iter(text.split())
        assert all(word in left for word in made.split())  # a subsequence
        assert bool(made.split()) == bool(text.split())


def test_words_go_as_often_as_told_and_differ_by_draw() -> None:
    text = " ".join(f"w{n}" for n in range(1000))
    one, other = (WordDropout(0.2)([text], draw)[0].split() for draw in (1, 2))
    assert len(one) == pytest.approx(800, abs=50)
    assert one != other


def test_each_synonym_is_taken_and_others_stay() -> None:
    every = {Synonyms(KNOWN, 1.0)(["Green SOFA"], draw)[0] for draw in range(20)}
    assert every == {"Green couch", "Green settee"}
    made = [Synonyms(KNOWN, 0.3)([f"tea {n}"], 0)[0] for n in range(500)]
    assert sum(text.startswith("infusion") for text in made) == pytest.approx(150, abs=40)


def test_a_share_of_the_texts_is_translated_there_and_back() -> None:
    there, back = Reversed(), Reversed()
    given_ = [f"a {n}" for n in range(400)]
    assert BackTranslation(there, back, 0.25)(given_, 3) == given_
    assert len(there.asked) == pytest.approx(100, abs=35)
    assert back.asked == [" ".join(text.split()[::-1]) for text in there.asked]


def test_a_translation_that_says_nothing_is_not_taken() -> None:
    silent = BackTranslation(lambda texts: [" "] * len(texts), list, 1.0)
    assert silent(["tea"], 0) == ["tea"]


def test_transforms_in_turn() -> None:
    both = InTurn([Synonyms({"b": ["c"]}, 1.0), Synonyms({"c": ["d"]}, 1.0)])
    assert both(["a b"], 0) == ["a d"]
    assert InTurn([])(["a b"], 0) == ["a b"]


def test_synonyms_are_read_in_small_letters(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.json"
    path.write_text('{"Sofa": ["couch"]}')
    assert read_synonyms(path) == {"sofa": ["couch"]}


@pytest.mark.parametrize("content", [None, "sofa,couch", '{"sofa": "couch"}', '{"sofa": []}'])
def test_a_file_without_synonyms_is_an_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "synonyms.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match="synonym"):
        read_synonyms(path)


@pytest.mark.parametrize("name", sorted(MAKERS))
@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_no_chance_is_refused(name: str, share: float) -> None:
    with pytest.raises(ConfigError, match=r"within 0\.\.1"):
        MAKERS[name](share)
