"""What is asked of the engine and what it answers, in the shapes that go over HTTP."""

from collections.abc import Mapping
from typing import TypedDict

import msgspec

from ray_rec.events import ExposedItem, Exposure


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One question: what should this user see next?

    `ts` (ms) is the moment that is asked about, None for now; replays set it. `category` keeps
    items of one category. `item` is looked at now: it counts as viewed, and is not shown. `query`
    is what is looked for: items are likened to its words in the place of the history's. Neither is
    kept but in the exposure's `context`. `placement` is where the items will stand, as exposures
    say it: the click head knows by it what that does. `details` adds titles, `explain` the parts of
    each score.
    """

    user_id: str
    request_id: str
    num: int = 10
    exclude: tuple[str, ...] = ()
    category: str | None = None
    item: str | None = None
    query: str | None = None
    placement: str | None = None
    context: Mapping[str, msgspec.Raw] | None = None
    explain: bool = False
    details: bool = False
    ts: int | None = None


class Details(TypedDict, total=False):
    """What the catalogue knows of an item; unknown parts are left out."""

    title: str
    category: str
    brand: str
    price: float


class AnswerItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One recommended item.

    `score` orders the ranking: recall score + click_weight * logit(p_click); `p_click` is the
    probability of the likeliest outcome; `propensity` that of being shown at this position.
    `explain` holds the parts of the recall score and the probability of each outcome; title,
    category, brand and price are there when details were asked for and are known.
    """

    item_id: str
    position: int
    score: float
    p_click: float
    propensity: float
    explain: dict[str, float] | None = None
    title: str | None = None
    category: str | None = None
    brand: str | None = None
    price: float | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a `Request`; all of it was made by one version."""

    request_id: str
    user_id: str
    model_version: int
    policy: str
    ts: int
    items: tuple[AnswerItem, ...]

    def exposure(self, request: Request) -> Exposure:
        """Return the record of what was shown to a request, for the topic `exposures`."""
        return Exposure(
            request_id=self.request_id,
            user_id=self.user_id,
            ts=self.ts,
            model_version=self.model_version,
            policy=self.policy,
            items=[
                ExposedItem(
                    item_id=item.item_id,
                    position=item.position,
                    score=item.score,
                    propensity=item.propensity,
                    placement=request.placement,
                )
                for item in self.items
            ],
            context=dict(request.context) if request.context else None,
        )


class SimilarItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An item like another one; `score` is the cosine of their vectors."""

    item_id: str
    score: float
    title: str | None = None
    category: str | None = None
    brand: str | None = None
    price: float | None = None
