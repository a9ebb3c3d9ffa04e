"""Invariants over random streams: no leak, any cutting gives the same, restoring changes nothing.

The result is also compared with the definitions of docs/events.md written down naively.
"""

from collections import Counter, defaultdict

from hypothesis import given, settings

from ray_rec.features.config import FeatureConfig
from ray_rec.features.state import FeatureState

from .builders import DAY, T0, Stream, same
from .streams import LATENESS, USERS, cut_streams

LENGTH = 4
CONFIG = {
    "lateness_ms": LATENESS,
    "attribution_ms": 80,
    "attribution_by_outcome_ms": {"click": 40, "purchase": 120},
    "attribution_by_policy_ms": {"mailing": 60},
    "history_length": LENGTH,
    "covisits": 3,
    "held_out_share": 0.3,
}
WINDOWS = {
    "page": {"click": 40, "cart": 80, "purchase": 120},
    "mailing": {"click": 60, "cart": 60, "purchase": 60},
}
BITS = {"click": 1, "cart": 2, "purchase": 4}
KNOWN_WISHES = ("opted_out", "forgotten", "tokens", "others", "outcomes")
"""Counts that depend on which wishes were known when an event arrived."""


def run(windows, restore=False, **changes):
    """Return (stream, closed exposures by (partition, offset), all windows)."""
    config = {**CONFIG, **changes}
    stream, outs = Stream(**config), []
    for records, plan in [*windows, ([], {"advance_to_ms": T0 + DAY})]:
        if restore:
            tables = stream.state.snapshot()
            stream = Stream(FeatureState.restore(FeatureConfig(**config), [tables]))
        outs.append(stream.window(*records, **plan))
    closed = {}
    for out in outs:
        for row in out.examples.to_pylist():
            if row["topic_code"] == 1:
                names = stream.item_ids(row["shown_item"])
                assert (row["partition"], row["offset"]) not in closed
                labels = dict(zip(names, row["shown_labels"], strict=True))
                seen = zip(stream.item_ids(row["token_item"]), row["token_ts"], strict=True)
                place = (row["partition"], row["offset"])
                closed[place] = (row["query_ts"], list(seen), labels)
    return stream, closed, outs


class Naive:
    """The definitions, record by record."""

    def __init__(self, records):
        self.wishes = defaultdict(list)
        for topic, r in records:
            if topic == "controls":
                self.wishes[r["user_id"]].append((r["ts"], r["action"]))
        seen = set()
        self.events = [
            r
            for topic, r in records
            if topic == "events"
            and r["event_id"] not in seen
            and not seen.add(r["event_id"])
            and not self.opted_out(r["user_id"], r["ts"])
        ]
        self.exposures = {}
        offsets = defaultdict(int)
        for topic, r in records:
            if topic == "exposures":
                place = (r["partition"], offsets[r["partition"]])
                offsets[r["partition"]] += 1
                self.exposures.setdefault(r["request_id"], (place, r))

    def opted_out(self, user, ts):
        choices = [w for w in self.wishes[user] if w[0] <= ts and w[1] != "forget"]
        strict = [(at, action == "opt_out") for at, action in choices]
        return bool(strict) and max(strict)[1]

    def erasures(self, user):
        return [at for at, action in self.wishes[user] if action != "opt_in"]

    def history(self, user, before=T0 + DAY):
        floor = max((at for at in self.erasures(user) if at <= before), default=0)
        tokens = [
            (r["item_id"], r["ts"])
            for r in self.events
            if r["user_id"] == user and floor < r["ts"] < before and r["event_type"] != "return"
        ]
        return sorted(tokens, key=lambda token: token[1])

    def closed(self):
        out = {}
        for place, r in self.exposures.values():
            longest = max(WINDOWS[r["policy"]].values())
            erasures = self.erasures(r["user_id"])
            opted_out = self.opted_out(r["user_id"], r["ts"])
            if not opted_out and not any(r["ts"] <= at < r["ts"] + longest for at in erasures):
                labels = {shown["item_id"]: 0 for shown in r["items"]}
                out[place] = ([r["ts"]], self.history(r["user_id"], r["ts"]), labels)
        for e in self.events:
            place = self.claimed_by(e)
            if place in out:
                _, seen, labels = out[place]
                labels[e["item_id"]] |= BITS[e["event_type"]]
                seen[:] = [token for token in seen if token != (e["item_id"], e["ts"])]
        return out

    def claimed_by(self, e):
        skew = LATENESS if e["request_id"] else 0
        fitting = [
            (r["ts"], order, place)
            for order, (request, (place, r)) in enumerate(self.exposures.items())
            if r["user_id"] == e["user_id"]
            and e["event_type"] in BITS
            and e["item_id"] in [shown["item_id"] for shown in r["items"]]
            and e["request_id"] in (None, request)
            and r["ts"] - skew <= e["ts"] < r["ts"] + WINDOWS[r["policy"]][e["event_type"]]
        ]
        return max(fitting)[2] if fitting else None


@given(cut_streams())
@settings(max_examples=150, deadline=None)
def test_any_cutting_gives_the_defined_examples_and_histories(cut):
    records, windows = cut
    # no history overflows: a full one has lost its oldest token for each newer one
    stream, closed, _ = run(windows, history_length=50)
    naive = Naive(records)
    assert closed == naive.closed()
    for user in USERS:
        assert stream.history(user) == naive.history(user)
    short, _, _ = run(windows)
    for user in USERS:
        assert short.history(user) == naive.history(user)[-LENGTH:]


@given(cut_streams())
@settings(max_examples=80, deadline=None)
def test_any_cutting_counts_alike(cut):
    records, windows = cut
    wishes = any(topic == "controls" for topic, _ in records)
    totals = []
    for pieces in (windows, [(records, {})]):
        total = Counter()
        for out in run(pieces)[2]:
            total.update(out.counts)
        for name in KNOWN_WISHES if wishes else ():
            del total[name]
        totals.append(total)
    assert totals[0] == totals[1]
    assert totals[0]["late"] == totals[0]["late_exposures"] == totals[0]["late_outcomes"] == 0
    assert totals[0]["exposures"] == sum(
        totals[0][name] for name in ("closed", "erased_exposures", "exposure_duplicates")
    )


@given(cut_streams())
@settings(max_examples=40, deadline=None)
def test_restoring_before_every_window_changes_nothing(cut):
    _, windows = cut
    stream, _, outs = run(windows)
    again, _, others = run(windows, restore=True)
    for one, other in zip(outs, others, strict=True):
        assert same(one.examples, other.examples)
        assert same(one.items, other.items)
        assert one.popularity.tolist() == other.popularity.tolist()
        assert (one.counts, one.at_ms) == (other.counts, other.at_ms)
    ours, theirs = stream.state.snapshot(), again.state.snapshot()
    assert all(same(ours[name], theirs[name]) for name in ours)


@given(cut_streams())
@settings(max_examples=40, deadline=None)
def test_no_query_sees_a_token_of_its_own_time_or_later(cut):
    _, windows = cut
    _, _, outs = run(windows)
    for out in outs:
        for row in out.examples.to_pylist():
            tokens = row["token_ts"]
            assert tokens == sorted(tokens)
            assert len(tokens) <= LENGTH
            for context, ts in zip(row["query_context"], row["query_ts"], strict=True):
                assert all(seen < ts for seen in tokens[:context])
            queries = range(len(row["query_ts"]))
            assert set(row["target_query"] + row["shown_query"]) == set(queries)
