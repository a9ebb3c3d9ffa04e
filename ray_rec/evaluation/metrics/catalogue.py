"""What lists do with the catalogue: how much of it they show, how evenly, and how far off the top.

Items are catalogue rows; a list is a row of `items` [Q, k], best first.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import AnyArray, Float32, Float64, Int64, hash_strings


def top_items(scores: AnyArray, k: int) -> Int64:
    """Return the best items of each query, [Q, min(k, N)], of `scores` [Q, N].

    Equals come in the catalogue's order; NaN comes last.

    >>> top_items(np.array([[1.0, 3.0, np.nan, 3.0, 1.0]]), 3)
    array([[1, 3, 0]])
    """
    known = np.where(np.isnan(scores), -np.inf, scores)
    k = min(k, known.shape[1])
    worst = np.partition(known, -k, axis=1)[:, -k, None]
    higher, equal = known > worst, known == worst
    room = k - higher.sum(axis=1, keepdims=True)
    taken = higher | (equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= room))
    items = np.nonzero(taken)[1].reshape(len(known), k)
    order = np.argsort(-np.take_along_axis(known, items, axis=1), axis=1, kind="stable")
    return np.take_along_axis(items, order, axis=1)


def coverage(shown: AnyArray) -> float:
    """Return the share of N items that were `shown` [N] at all (Herlocker et al. 2004)."""
    return float(np.mean(shown > 0)) if len(shown) else float("nan")


def gini(shown: AnyArray) -> float:
    """Return how unequally often items were `shown` [N]: 0 all alike, 1 only one; NaN if none was.

    Source: Shani and Gunawardana 2011, the sum of (2j - N - 1) p_j over N - 1, p ascending.
    """
    total, n = shown.sum(), len(shown)
    if not total or n < 2:
        return float("nan")
    rank = 2 * np.arange(1, n + 1) - n - 1
    return float((rank * np.sort(shown)).sum() / (total * (n - 1)))


def self_information(counts: AnyArray) -> Float64:
    """Return the surprise of each item [N] in bits: -log2 of its share of training `counts` [N].

    Each item counts once more than it was taken, so that new ones surprise finitely.
    Source: Zhou et al. 2010; the added one is Laplace's.
    """
    bits: Float64 = np.log2(counts.sum() + len(counts)) - np.log2(counts + 1.0)
    return bits


def novelty(items: Int64, counts: AnyArray) -> Float64:
    """Return the mean `self_information` of each list, [Q], in bits."""
    mean: Float64 = self_information(counts)[items].mean(axis=1)
    return mean


def diversity(vectors: AnyArray) -> Float64:
    """Return the mean distance of 1 - cosine over the pairs in each list, [Q].

    Args:
        vectors: of the items in each list, [Q, k, d]. One of zeros is at right angles to all.

    NaN for lists of one item. Source: intra-list similarity, Ziegler et al. 2005.
    """
    num_queries, k, _ = vectors.shape
    if k < 2:
        return np.full(num_queries, np.nan)
    v = vectors.astype(np.float64)
    length = np.linalg.norm(v, axis=2, keepdims=True)
    unit = np.divide(v, length, out=np.zeros_like(v), where=length > 0)
    itself = (unit**2).sum(axis=(1, 2))
    cosines = (unit.sum(axis=1) ** 2).sum(axis=1) - itself  # of all pairs, both ways round
    distance: Float64 = 1 - cosines / (k * (k - 1))
    return distance


def popularity_bias(items: Int64, seen: AnyArray, counts: AnyArray) -> float:
    """Return how much more popular listed items are than what was taken: 1 is no bias.

    The mean training count of what is recommended, out of `counts` [N], over that of the targets,
    `seen` [T]; NaN where the latter is 0. Source: average recommendation popularity and its lift,
    Abdollahpouri et al. 2019.
    """
    taken = seen.mean() if len(seen) else 0.0
    return float(counts[items].mean() / taken) if taken else float("nan")


def word_vectors(texts: Sequence[str], dim: int = 256) -> Float32:
    """Return each text as the words in it, [N, dim]: lists are compared without any encoder.

    A word is one place with a sign, by its hash, so that unlike texts are at right angles but for
    chance; rare words count for more, log(N / texts with it). Source: Weinberger et al. 2009.
    """
    words = [sorted(set(text.lower().split())) for text in texts]
    text = np.repeat(np.arange(len(texts)), [len(found) for found in words])
    flat = pa.array([word for found in words for word in found], pa.string())
    code = flat.dictionary_encode()
    word, used = code.indices.to_numpy(), np.bincount(code.indices, minlength=1)
    key = hash_strings(code.dictionary)[word]
    sign = 1 - 2 * (key >> np.uint64(63)).astype(np.float32)
    out = np.zeros((len(texts), dim), np.float32)
    weight = np.log(len(texts) / used[word]).astype(np.float32)
    np.add.at(out, (text, (key % np.uint64(dim)).astype(np.int64)), sign * weight)
    return out
