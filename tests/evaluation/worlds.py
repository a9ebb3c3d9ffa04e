"""Small logs of known behaviour, as decoded tables and as example rows."""

import pyarrow as pa

from ray_rec.evaluation.asking.questions import Interactions, Queries, Users, questions
from ray_rec.events.schema import EVENTS, EVENTS_SCHEMA
from ray_rec.features.config import FeatureConfig
from ray_rec.features.examples import EVENTS_CODE
from ray_rec.features.state import FeatureState
from ray_rec.log.window import Window

Taken = tuple[str, str, int]
"""(user, item, ts)"""


def events_table(taken: list[Taken], first_offset: int = 0) -> pa.Table:
    rows = [
        {
            "partition": 0,
            "offset": first_offset + place,
            "event_id": f"e{first_offset + place}",
            "user_id": user,
            "item_id": item,
            "event_type": "purchase",
            "ts": ts,
        }
        for place, (user, item, ts) in enumerate(taken)
    ]
    return pa.Table.from_pylist(rows, EVENTS_SCHEMA)


class World:
    """Feeds windows of purchases through the features, as a backtest does."""

    def __init__(self) -> None:
        self.state = FeatureState(FeatureConfig())
        self.users = Users()
        self._offset = 0

    def window(self, taken: list[Taken], most: int = 0) -> tuple[Queries, Interactions]:
        table = events_table(taken, self._offset)
        end = self._offset + len(taken)
        window = Window(self.state.number, {EVENTS: {0: (self._offset, end)}})
        self._offset = end
        self.users.note(EVENTS_CODE, table)
        made = self.state.apply(window, {EVENTS: table})
        return questions(made.examples, self.users, len(self.state.catalogue), most)

    def row(self, item: str) -> int:
        return self.state.catalogue.index.row(item)
