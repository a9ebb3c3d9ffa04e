"""A tiny shop: 48 items in four categories, eight users, a log of both and records to add."""

import time
from collections.abc import Iterable, Sequence

from ray_rec.events import EVENTS, ITEMS, Event, Item, Record, encode, key_of
from ray_rec.log import EventLog, create_standard_topics

KINDS = {
    "tea": ["green leaves", "black leaves", "herbal infusion", "white blossom"],
    "cheese": ["aged wheel", "soft goat", "blue wedge", "smoked slice"],
    "garden": ["steel spade", "clay pot", "rose seeds", "hose reel"],
    "paper": ["lined notebook", "gift wrap", "drawing pad", "brown envelope"],
}
MAKERS = ("north", "harbour", "old mill")
START_MS = 1_700_000_000_000


def items() -> list[Item]:
    """All items of the shop, in order."""
    return [
        Item(
            item_id=f"{kind}-{4 * m + n + 1}",
            title=f"{maker} {name} {kind}",
            category=kind,
            brand=maker,
            price=1.5 + n,
            ts=START_MS,
        )
        for kind, names in KINDS.items()
        for m, maker in enumerate(MAKERS)
        for n, name in enumerate(names)
    ]


def events(users: int = 8, each: int = 12, start_ms: int | None = None) -> list[Event]:
    """Purchases: user n mostly buys of category n mod 4; the last ends a minute ago."""
    everything = items()
    first = (int(time.time() * 1000) - 60_000 * (each + 1)) if start_ms is None else start_ms
    return [
        Event(
            event_id=f"e{user}-{n}",
            user_id=f"u{user}",
            item_id=everything[(12 * (user % 4) + (n * 5 + user) % 12)].item_id,
            event_type="purchase" if n % 3 else "click",
            ts=first + 60_000 * n + user,
        )
        for n in range(each)
        for user in range(users)
    ]


def records(topic: str, structs: Iterable[Item | Event]) -> list[Record]:
    """Encode for a log."""
    return [Record(key_of(topic, struct), encode(struct), struct.ts) for struct in structs]


def fill(log: EventLog, shop_items: Sequence[Item] | None = None) -> None:
    """Create the topics with two partitions and write items and events."""
    create_standard_topics(log, 2)
    log.append(ITEMS, records(ITEMS, items() if shop_items is None else shop_items))
    log.append(EVENTS, records(EVENTS, events()))
