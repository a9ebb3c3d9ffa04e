"""From a ranking and a policy's choice to the items of an answer."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ray_rec.features.catalogue import Catalogue
from ray_rec.serving.answers import AnswerItem, Request, SimilarItem
from ray_rec.serving.policy import Choice
from ray_rec.serving.ranking import likeliest
from ray_rec.serving.shelf import details_of

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


class Ranking(NamedTuple):
    """Candidates, best first: rows [K], scores [K], outcome probabilities [K, O]."""

    rows: Int64
    scores: Float32
    outcomes: Float32
    parts: dict[str, Float32]  # of the recall score: name -> [N]


def answer_items(
    request: Request,
    ranking: Ranking,
    choice: Choice,
    catalogue: Catalogue,
    outcome_types: Sequence[str],
) -> tuple[AnswerItem, ...]:
    """Return what is shown, by position, with as much detail as the request asks for."""
    p_click = likeliest(ranking.outcomes)
    shown = zip(choice.picks.tolist(), choice.propensities.tolist(), strict=True)
    return tuple(
        AnswerItem(
            item_id=str(catalogue.item_id[ranking.rows[pick]]),
            position=position,
            score=float(ranking.scores[pick]),
            p_click=float(p_click[pick]),
            propensity=propensity,
            explain=_explained(ranking, pick, outcome_types) if request.explain else None,
            **(details_of(catalogue, int(ranking.rows[pick])) if request.details else {}),
        )
        for position, (pick, propensity) in enumerate(shown, 1)
    )


def similar_items(catalogue: Catalogue, rows: Int64, scores: Float32) -> list[SimilarItem]:
    """Return rows [K] with their scores of [N], in this order."""
    return [
        SimilarItem(
            item_id=str(catalogue.item_id[row]),
            score=float(scores[row]),
            **details_of(catalogue, row),
        )
        for row in rows.tolist()
    ]


def _explained(ranking: Ranking, pick: int, outcome_types: Sequence[str]) -> dict[str, float]:
    row = ranking.rows[pick]
    parts = {f"recall.{name}": float(values[row]) for name, values in ranking.parts.items()}
    outcomes = zip(outcome_types, ranking.outcomes[pick], strict=True)
    return parts | {f"p.{name}": float(p) for name, p in outcomes}
