"""A small shop with a habit to learn: people come back to the kinds of thing they bought before."""

import json
import random

import msgspec

from ray_rec.config import RunConfig
from ray_rec.events.schema import EVENTS, EXPOSURES, ITEMS, Record
from ray_rec.log.base import EventLog

KINDS = ("milk", "bread", "coffee", "soap", "apples", "cheese", "tea", "paper")
PER_KIND = 6
START_MS = 1_700_000_000_000


def fill_items(log: EventLog) -> None:
    """Put 48 items, six of each kind."""
    records = []
    for number in range(len(KINDS) * PER_KIND):
        kind = KINDS[number // PER_KIND]
        item = {
            "item_id": f"i{number}",
            "title": f"{kind} number {number % PER_KIND}",
            "category": kind,
            "price": 1.0 + number % 5,
            "ts": START_MS,
        }
        records.append(Record(item["item_id"].encode(), msgspec.json.encode(item), START_MS))
    log.append(ITEMS, records)


def fill_visits(log: EventLog, visits: int, first: int = 0, users: int = 40) -> None:
    """Put `visits` exposures of four items, each followed by a purchase out of the user's kind."""
    rng = random.Random(first)
    exposures, events = [], []
    for visit in range(first, first + visits):
        user, ts = f"u{rng.randrange(users)}", START_MS + 1_000 + visit * 60_000
        kind = int(user[1:]) % len(KINDS)
        bought = kind * PER_KIND + rng.randrange(PER_KIND)
        shown = [bought, *(rng.randrange(len(KINDS) * PER_KIND) for _ in range(3))]
        exposure = {
            "request_id": f"r{visit}",
            "user_id": user,
            "ts": ts,
            "model_version": 0,
            "policy": "test",
            "items": [
                {"item_id": f"i{item}", "position": place + 1, "score": 0.0, "propensity": 1.0}
                for place, item in enumerate(dict.fromkeys(shown))
            ],
        }
        event = {
            "event_id": f"e{visit}",
            "user_id": user,
            "item_id": f"i{bought}",
            "event_type": "purchase",
            "ts": ts + 5_000,
            "request_id": f"r{visit}",
        }
        exposures.append(Record(user.encode(), msgspec.json.encode(exposure), ts))
        events.append(Record(user.encode(), msgspec.json.encode(event), ts + 5_000))
    log.append(EXPOSURES, exposures)
    log.append(EVENTS, events)


def flags(config: RunConfig) -> list[str]:
    """Return the `--set` options that make this configuration (JSON scalars are TOML)."""
    options = []
    for key, value in config.to_dict().items():
        leaves = value.items() if isinstance(value, dict) else [("", value)]
        for leaf, plain in leaves:
            if plain is not None and not isinstance(plain, dict):
                options += ["--set", f"{key}.{leaf}".rstrip(".") + f"={json.dumps(plain)}"]
    return options
