"""What users did, as far as they allow: events sifted by wishes and merged into histories."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ray_rec.features.arrays import (
    Bool,
    Column,
    Int32,
    Int64,
    UInt64,
    column,
    hash_strings,
    numbers,
)
from ray_rec.features.config import DAY_MS, FeatureConfig
from ray_rec.features.controls import ACTION_CODES, ALWAYS, Controls
from ray_rec.features.histories import Histories, Sequences
from ray_rec.features.recall import NewTokens
from ray_rec.features.records import EventRows, Records
from ray_rec.features.seen import Seen


@dataclass(frozen=True)
class Absorbed:
    """What some records added."""

    is_token: Bool  # [events] which of them are new tokens
    live: EventRows  # first of their key and not opted out: these may be outcomes
    new: NewTokens
    sequences: Sequences  # of users with new tokens, exposures or wishes; new tokens in place
    user_hash: UInt64  # [K] of the sequences' users
    exposure_user: Int32  # [exposures] rows of Histories, -1 without history
    counts: dict[str, int]


class Behaviour:
    """Histories, with what keeps them clean: keys seen before, and controls.

    Of all users, or of those of one of `num_owners`, who has as large a part of the memory.
    """

    def __init__(self, config: FeatureConfig, num_owners: int = 1) -> None:
        self._config = config
        self._most_bytes = config.max_state_mb * 1e6 / num_owners
        self._is_token = np.array([t in config.target_types for t in config.event_types])
        self.histories = Histories(config.history_length)
        self.seen = Seen(config.dedup_ms)
        self.controls = Controls()

    def absorb(self, records: Records, wishes: pa.Table, watermark_ms: int) -> Absorbed:
        """Take events and wishes; nothing of a duplicate, opted out or erased event remains.

        An event that is older than an erasure already known counts neither for learning nor as
        history, but a label may still come of it, whichever window it arrived in.
        """
        events = records.events
        first = self.seen.is_new(events.key, events.ts, watermark_ms)
        forgotten = self.controls.erased_until(events.user, ALWAYS) >= events.ts
        wishers = self._take_wishes(wishes)
        live = first & ~self.controls.opted_out(events.user, events.ts)
        is_token = live & ~forgotten & self._is_token[events.type]
        tokens = events.take(is_token)
        rows, exposure_user = self._user_rows(tokens, records)
        users = np.concatenate([rows, exposure_user[exposure_user >= 0], wishers])
        new, sequences = self._merge(tokens, rows, np.unique(users).astype(np.int64))
        user_hash = self.histories.user_hash[sequences.users]
        if wishes.num_rows:
            user = np.repeat(user_hash, np.diff(sequences.start))
            opted_out = self.controls.opted_out(user, sequences.tokens["ts"])
            sequences = sequences.where(~opted_out)
        owners = np.concatenate([new.owner, sequences.owner(wishers)])
        changed = np.flatnonzero(np.bincount(owners))
        self._store(sequences, user_hash, changed, wished=bool(wishes.num_rows))
        counts = {
            "events": len(events),
            "duplicates": int((~first).sum()),
            "opted_out": int((first & ~live).sum()),
            "forgotten": int((live & forgotten).sum()),
            "late": int((first & (events.ts < watermark_ms)).sum()),
            "tokens": len(tokens),
            "others": int((live & ~forgotten).sum()) - len(tokens),
        }
        live_events = events.take(live)
        return Absorbed(is_token, live_events, new, sequences, user_hash, exposure_user, counts)

    def settle(self, since_ms: int, watermark_ms: int, other_bytes: float) -> dict[str, int]:
        """Let go of what is no longer needed; return how many users went by which bound.

        `other_bytes` are held elsewhere. Idle users go once the watermark has come from another
        day than `since_ms`, as looking for them takes a look at all.
        """
        config, histories = self._config, self.histories
        self.prune(watermark_ms)
        today, idle = watermark_ms // DAY_MS, 0
        if config.user_ttl_days and today > since_ms // DAY_MS:
            idle = histories.drop_idle((today - config.user_ttl_days) * DAY_MS)
        most = self._most_bytes
        other_bytes += self.seen.num_bytes + self.controls.num_bytes
        beyond = histories.drop_beyond(max(most - other_bytes, most / 10))
        histories.pack()
        return {"evicted_idle": idle, "evicted_memory": beyond}

    def prune(self, watermark_ms: int) -> None:
        """Drop wishes that later ones have made void for all that may still come."""
        config = self._config
        self.controls.prune(watermark_ms - max(config.dedup_ms, config.longest_attribution_ms))

    def _take_wishes(self, wishes: pa.Table) -> Int32:
        """Store wishes; return the history rows of users who made one."""
        if not wishes.num_rows:
            return np.zeros(0, np.int32)
        users: Column = column(wishes, "user_id")
        actions = [ACTION_CODES[action] for action in column(wishes, "action").to_pylist()]
        action = np.array(actions, np.int8)
        self.controls.add(hash_strings(users), numbers(wishes, "ts"), action)
        rows = self.histories.rows(users)
        return rows[rows >= 0]

    def _user_rows(self, tokens: EventRows, records: Records) -> tuple[Int32, Int32]:
        """Return the history row of each token's and each exposure's user."""
        active = np.unique(tokens.user_code)
        row_of_code = np.full(len(records.event_users), -1, np.int32)
        row_of_code[active] = self.histories.rows(records.event_users.take(active), add=True)
        exposed = self.histories.rows(records.exposure_users)
        return row_of_code[tokens.user_code], exposed[records.exposures.user_code]

    def _merge(self, tokens: EventRows, rows: Int32, users: Int64) -> tuple[NewTokens, Sequences]:
        order = np.lexsort((tokens.offset, tokens.partition, tokens.ts, rows))
        tokens, rows = tokens.take(order), rows[order]
        owner = np.searchsorted(users, rows)
        columns = {"item": tokens.item, "type": tokens.type, "ts": tokens.ts}
        sequences = self.histories.merge(users, owner, columns)
        floor = self.controls.erased_until(tokens.user, tokens.ts) + 1
        place = {"partition": tokens.partition, "offset": tokens.offset}
        return NewTokens(owner=owner, floor=floor, **columns, **place), sequences

    def _store(self, sequences: Sequences, user_hash: UInt64, changed: Int64, wished: bool) -> None:
        """Write changed histories; users whose wishes leave nothing are forgotten altogether."""
        if not wished:
            self.histories.write(sequences, changed)
            return
        user = np.repeat(user_hash, np.diff(sequences.start))
        ts = sequences.tokens["ts"]
        keep: Bool = ~self.controls.erases(user, ts, ALWAYS)
        kept = sequences.where(keep)
        self.histories.write(kept, changed)
        self.histories.drop(kept.users[np.diff(kept.start) == 0])
