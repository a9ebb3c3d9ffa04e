"""Which ranked items are shown, and with what probability each was.

The propensity of a shown item is the exact marginal probability that this policy puts this item at
this position, given the ranking; that is what item-position estimators (IPS, SNIPS) divide by.
"""

import hashlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Choice(NamedTuple):
    """`picks` [n] int64: indexes into the ranking, by position; `propensities` [n] float64."""

    picks: npt.NDArray[np.int64]
    propensities: npt.NDArray[np.float64]


def greedy(num_ranked: int, num: int) -> Choice:
    """Show the first `num` of the ranking, each with probability one."""
    shown = min(num, num_ranked)
    return Choice(np.arange(shown), np.ones(shown))


def epsilon_greedy(
    num_ranked: int, num: int, epsilon: float, generator: np.random.Generator
) -> Choice:
    """Let each slot show, with probability epsilon, an item from below the first `num`.

    With n slots and T ranked items below them, one drawing without replacement gives every slot
    its own ticket out of max(T, n); a slot that explores shows the tail item of its ticket, and
    keeps its greedy item when its ticket names none (only possible when T < n). Hence

        P(tail item at slot j) = epsilon / max(T, n)        for each of the T tail items
        P(greedy item j at slot j) = 1 - epsilon * T / max(T, n)

    >>> epsilon_greedy(12, 2, 0.5, np.random.default_rng(1)).propensities.tolist()
    [0.05, 0.5]
    """
    shown = min(num, num_ranked)
    tail = num_ranked - shown
    tickets = max(tail, shown)
    if tail == 0 or epsilon == 0.0:
        return greedy(num_ranked, num)
    drawn = generator.choice(tickets, size=shown, replace=False)
    explores = (generator.random(shown) < epsilon) & (drawn < tail)
    picks = np.where(explores, shown + drawn, np.arange(shown))
    propensities = np.where(explores, epsilon / tickets, 1.0 - epsilon * tail / tickets)
    return Choice(picks, propensities)


def request_generator(seed: int, request_id: str) -> np.random.Generator:
    """Return the generator of one request, so that its choice can be made again from its id."""
    digest = hashlib.blake2b(f"{seed}|{request_id}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
