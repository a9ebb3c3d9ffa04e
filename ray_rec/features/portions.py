"""Users shared out among owners: what a window brings to each, and the tables they tell.

One owner's tables are called `histories` and so on, those of several `histories.0`, `histories.1`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pyarrow as pa

from ray_rec.errors import StateError
from ray_rec.features.arrays import (
    AnyArray,
    Bool,
    Column,
    Int64,
    arrow,
    column,
    hash_strings,
    numbers,
)
from ray_rec.features.covisits import NO_COMPANIONS, Companions, in_log_order
from ray_rec.features.owners import owner_of
from ray_rec.features.records import Records, Rows
from ray_rec.features.users import Chain, Gained, Share

SHARED_TABLES = ("progress", "catalogue", "popularity", "covisits", "responses", "watermark")
_KEYS = {
    "histories": "user",
    "seen_events": "key",
    "seen_exposures": "key",
    "controls": "user",
    "open_exposures": "user",
    "outcomes": "user",
}
"""The tables of users, and the column that tells whose a row is; null: a row that has gone."""

AnyRows = TypeVar("AnyRows", bound=Rows)


@dataclass(frozen=True)
class Portion:
    """One owner's share of a window; `events` [n] are their places among all of it."""

    share: Share
    events: Int64


def portions(share: Share, num_owners: int) -> list[Portion]:
    """Return each owner's users' part of a window, in the same order."""
    events, exposures = share.records.events, share.records.exposures
    event_owner = owner_of(events.user, num_owners)
    exposure_owner = owner_of(exposures.user, num_owners)
    wish_owner = owner_of(hash_strings(column(share.wishes, "user_id")), num_owners)
    shown_owner = np.repeat(exposure_owner, exposures.num_items)
    return [
        Portion(
            replace(
                share,
                records=_records(share.records, event_owner == n, exposure_owner == n),
                wishes=share.wishes.filter(arrow(wish_owner == n)),
                known={k: v[shown_owner == n] for k, v in share.known.items()},
            ),
            np.flatnonzero(event_owner == n),
        )
        for n in range(num_owners)
    ]


def together(share: Share, parts: Sequence[Portion], gained: Sequence[Gained]) -> Gained:
    """Return what a window gave to all users from what it gave to each owner's."""
    is_token = np.zeros(len(share.records.events), np.bool_)
    counts: dict[str, int] = {}
    for portion, each in zip(parts, gained, strict=True):
        is_token[portion.events] = each.is_token
        counts = {name: counts.get(name, 0) + count for name, count in each.counts.items()}
    place, company = np.cumsum(is_token) - 1, [NO_COMPANIONS]
    for portion, each in zip(parts, gained, strict=True):
        token = place[portion.events[each.is_token]]
        company.append(Companions(token[each.company.token], each.company.before))
    return Gained(
        is_token,
        in_log_order(company),
        np.concatenate([each.closed_item for each in gained]),
        np.concatenate([each.closed_labels for each in gained]),
        pa.concat_tables([each.examples for each in gained]),
        counts,
    )


def _records(records: Records, event: Bool, exposure: Bool) -> Records:
    events, event_users = _of_some(records.events, records.event_users, event)
    exposures, exposure_users = _of_some(records.exposures, records.exposure_users, exposure)
    is_shown = np.repeat(exposure, records.exposures.num_items)
    shown = {name: values[is_shown] for name, values in records.shown.items()}
    return Records(events, event_users, exposures, exposure_users, shown)


def _of_some(rows: AnyRows, users: Column, chosen: Bool) -> tuple[AnyRows, Column]:
    rows = rows.take(chosen)
    codes = np.unique(rows.user_code)
    return replace(rows, user_code=np.searchsorted(codes, rows.user_code)), users.take(arrow(codes))


def named(tables: Sequence[Mapping[str, pa.Table]]) -> dict[str, pa.Table]:
    """Return the tables of several owners under names that tell them apart."""
    return {f"{name}.{n}": t for n, each in enumerate(tables) for name, t in each.items()}


def shared_chain(segments: Chain) -> list[dict[str, pa.Table]]:
    """Return what segments hold that is no single user's; StateError when some of it is missing."""
    return [_picked(tables, SHARED_TABLES) for tables in segments]


def chains_of(segments: Chain) -> list[Chain]:
    """Return the tables of users by the owner that told them, under the names of one owner's.

    Raises StateError when some are missing.
    """
    owners = {int(owner) for _, _, owner in (name.partition(".") for name in segments[0]) if owner}
    endings = [f".{n}" for n in range(max(owners) + 1)] if owners else [""]
    return [[_picked(tables, _KEYS, ending) for tables in segments] for ending in endings]


def chains_for(owner: int, num_owners: int, chains: Sequence[Chain]) -> list[Chain]:
    """Return what an owner needs of chains that other owners, or as many, have told."""
    if len(chains) == num_owners:
        return [chains[owner]]
    return [
        [{n: _of_owner(t, _KEYS[n], owner, num_owners) for n, t in tables.items()} for tables in c]
        for c in chains
    ]


def _of_owner(table: pa.Table, key: str, owner: int, num_owners: int) -> pa.Table:
    gone = column(table, key).is_null().to_numpy(zero_copy_only=False)
    hashes: AnyArray = numbers(table, key, fill=0)
    return table.filter(arrow(gone | (owner_of(hashes, num_owners) == owner)))


def _picked(
    tables: Mapping[str, pa.Table], names: Sequence[str] | Mapping[str, str], ending: str = ""
) -> dict[str, pa.Table]:
    if missing := sorted(name + ending for name in names if name + ending not in tables):
        raise StateError(f"no snapshot of features: tables {missing} are missing; take another")
    return {name: tables[name + ending] for name in names}
