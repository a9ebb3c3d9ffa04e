"""One trial: a stream through kills, then undisturbed over the same plans; both the same."""

from collections.abc import Sequence

from tests.chaos.kills import Kill
from tests.chaos.ledger import check_books, check_learned_once
from tests.chaos.outcome import Outcome, check_consumed, check_same
from tests.chaos.stage import Stage


def trial(stage: Stage, kills: Sequence[Kill]) -> tuple[Outcome, list[Kill]]:
    """Return what the undisturbed run left, and the kills that came before the end.

    Raises:
        AssertionError: a run failed, left something behind, or one is not what the other is.
    """
    disturbed, made = stage.run(kills)
    check_consumed(disturbed, stage.config.log)
    books = check_books(disturbed, stage.config)
    if not stage.config.training.replay_windows:
        check_learned_once(disturbed, books)
    calm, _ = stage.repeat()
    check_same(disturbed, calm)
    return calm, made
