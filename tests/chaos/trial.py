"""One trial: a stream through kills, then undisturbed over the same plans; both the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos.kills import Kill
from tests.chaos.ledger import check_books, check_learned_once
from tests.chaos.outcome import check_consumed, check_same
from tests.chaos.shop import configure, fill
from tests.chaos.stage import Stage


def trial(
    log_url: str, folder: Path, windows: int, kills: Sequence[Kill], broker: Any = None
) -> list[Kill]:
    """Return the kills that came before the end; AssertionError for anything that differs."""
    fill(log_url, windows)
    config = configure(log_url, folder / "run")
    with Stage(config, broker) as stage:
        disturbed, made = stage.run(kills)
        check_consumed(disturbed, log_url)
        check_learned_once(disturbed, check_books(disturbed, config))
        calm = stage.repeat()
        check_same(disturbed, calm)
    return made
