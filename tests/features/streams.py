"""Random streams of records, none later than LATENESS, and how they may be cut into windows."""

from hypothesis import strategies as st

from .builders import T0, control, event, exposure

LATENESS = 30
POLICIES = ["page", "mailing"]
USERS, ITEMS, KINDS = "uv", "abc", ["view", "click", "cart", "purchase", "return"]
PARTITIONS = [(topic, number) for topic in ("events", "exposures") for number in (0, 1)]


@st.composite
def streams(draw):
    """Return records in order of arrival, none later than LATENESS, with duplicates."""
    now, records = T0, []
    for n in range(draw(st.integers(0, 30) | st.integers(20, 30))):
        now += draw(st.integers(0, 20))
        ts = now - draw(st.integers(0, LATENESS))
        user = draw(st.sampled_from(USERS))
        partition = {"partition": USERS.index(user) % 2}
        what = draw(st.sampled_from(["event"] * 5 + ["exposure"] * 3 + ["wish", "again"]))
        if what == "event":
            kind, name = draw(st.sampled_from(KINDS)), draw(st.sampled_from(ITEMS))
            requests = [r["request_id"] for t, r in records if t == "exposures"]
            request = draw(st.sampled_from([None, f"r{n + 1}", f"r{n + 2}", *requests]))
            more = {"event_id": f"e{n}", "request_id": request, **partition}
            records.append(event(user, name, ts, kind, **more))
        elif what == "exposure":
            names = draw(st.lists(st.sampled_from(ITEMS), min_size=1, max_size=3, unique=True))
            policy = draw(st.sampled_from(POLICIES))
            records.append(exposure(f"r{n}", user, ts, names, policy=policy, **partition))
        elif what == "wish":
            action = draw(st.sampled_from(["forget", "opt_out", "opt_in"]))
            # events that arrive before an opt_in is known are gone, so it must not be late
            at = now if action == "opt_in" else ts
            topic, fields = control(user, action, at)
            records.append((topic, {**fields, **partition}))
        elif again := [r for r in records if r[0] != "controls"]:
            records.append(draw(st.sampled_from(again)))
    return records


@st.composite
def cut_streams(draw):
    records = draw(streams())
    cuts = draw(st.lists(st.integers(0, len(records)), min_size=len(records) // 3, max_size=12))
    ends = [*sorted(cuts), len(records)]
    idle = st.lists(st.sampled_from(PARTITIONS), max_size=3).map(tuple)
    return records, [
        (records[a:b], {"idle": draw(idle)}) for a, b in zip([0, *ends], ends, strict=False)
    ]
