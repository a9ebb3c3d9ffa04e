"""The application as clients meet it: a real Serve app on a real local Ray cluster, over HTTP."""

import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from ray_rec.events import EVENTS, EXPOSURES, decode
from tests.serve.running import Running, eventually

pytestmark = pytest.mark.ray


def ask(app: Running, user_id: str, **more: Any) -> dict[str, Any]:
    response = app.http.post("/v1/recommendations", json={"user_id": user_id, **more})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def event(user_id: str, item_id: str, **more: Any) -> dict[str, Any]:
    return {
        "event_id": uuid.uuid4().hex,
        "user_id": user_id,
        "item_id": item_id,
        "event_type": "purchase",
        "ts": int(time.time() * 1000),
        **more,
    }


def test_an_answer_has_the_agreed_shape(app: Running) -> None:
    answer = ask(app, "u1", num=5, context={"page": "home"})
    assert answer.keys() == {"request_id", "user_id", "model_version", "policy", "ts", "items"}
    assert answer["user_id"] == "u1"
    assert answer["model_version"] == app.version()
    assert [item["position"] for item in answer["items"]] == [1, 2, 3, 4, 5]
    assert len({item["item_id"] for item in answer["items"]}) == 5
    for item in answer["items"]:
        assert item.keys() == {"item_id", "position", "score", "p_click", "propensity"}
        assert 0 <= item["p_click"] <= 1


def test_a_stranger_gets_an_answer(app: Running) -> None:
    assert len(ask(app, f"stranger {uuid.uuid4()} ünïcode")["items"]) == 10


def test_details_and_explanations_are_given_when_asked_for(app: Running) -> None:
    item = ask(app, "u1", num=1, details=True, explain=True)["items"][0]
    assert item["title"]
    assert item["category"]
    assert any(name.startswith("recall.") for name in item["explain"])
    assert item["explain"]["p.purchase"] <= item["p_click"] + 1e-6


def test_exclusions_and_categories_hold_and_cost_no_answers(app: Running) -> None:
    everything = ask(app, "u1", num=40, details=True)["items"]
    assert len(everything) >= 40
    banned = [item["item_id"] for item in everything[:20]]
    rest = ask(app, "u1", num=20, exclude=[*banned, "no such item"])["items"]
    assert len(rest) == 20
    assert not set(banned) & {item["item_id"] for item in rest}
    teas = ask(app, "u1", num=8, details=True, context={"category": "tea"})["items"]
    assert {item["category"] for item in teas} == {"tea"}
    assert len(teas) == 8
    assert ask(app, "u1", context={"category": "no such category"})["items"] == []


def test_an_accepted_event_is_known_to_the_next_answer(app: Running) -> None:
    user = f"new {uuid.uuid4().hex}"
    before = [item["item_id"] for item in ask(app, user, num=20)["items"]]
    posted = [event(user, before[-1]), event(user, before[-2])]
    response = app.http.post("/v1/events", json={"events": posted})
    assert response.status_code == 202
    assert response.json() == {"accepted": 2, "rejected": []}
    past = app.http.get(f"/v1/users/{user}/history").json()["events"]
    assert {known["item_id"] for known in past} == {before[-1], before[-2]}
    assert [item["item_id"] for item in ask(app, user, num=20)["items"]] != before
    assert user in app.http.get("/v1/users").json()["users"]


def test_events_keep_unknown_fields_on_the_log(app: Running) -> None:
    sent = event("u3", "tea-1", colour="green", context={"deep": [1, {"x": None}]})
    assert app.http.post("/v1/events", json={"events": [sent]}).status_code == 202
    ranges = {p: (0, end) for p, end in app.log.latest(EVENTS).items()}
    values = [v for raw in app.log.read(EVENTS, ranges) for v in raw["value"].to_pylist()]
    assert any(b'"colour"' in v and sent["event_id"].encode() in v for v in values)


def test_bad_events_are_named_and_good_ones_beside_them_accepted(app: Running) -> None:
    batch = [event("u1", "tea-1"), event("u1", "tea-1", ts="late"), {"user_id": "u1"}, 7]
    response = app.http.post("/v1/events", json={"events": batch})
    assert response.status_code == 202
    body = response.json()
    assert body["accepted"] == 1
    assert body["rejected"][0]["field"] == "ts"
    assert [bad["index"] for bad in body["rejected"]] == [1, 2, 3]
    assert all(bad["reason"] for bad in body["rejected"])
    response = app.http.post("/v1/events", json={"events": batch[1:]})
    assert response.status_code == 422
    assert response.json()["accepted"] == 0


def test_events_of_a_time_to_come_are_refused(app: Running) -> None:
    tomorrow = int(time.time() * 1000) + 86_400_000
    batch = [event("u1", "tea-1", ts=tomorrow), event("u1", "tea-1")]
    body = app.http.post("/v1/events", json={"events": batch}).json()
    (rejected,) = body["rejected"]
    assert (body["accepted"], rejected["index"], rejected["field"]) == (1, 0, "ts")
    assert rejected["code"] == "ahead_of_log"
    assert "clock" in rejected["reason"]


def test_exposures_are_logged_with_version_policy_and_propensity(app: Running) -> None:
    user = f"shown {uuid.uuid4().hex}"
    places = [{"n": n, "placement": "front page"} for n in range(20)]
    answers = {a["request_id"]: a for a in (ask(app, user, context=place) for place in places)}

    def logged() -> list[dict[str, Any]]:
        ranges = {p: (0, end) for p, end in app.log.latest(EXPOSURES).items()}
        tables = [decode(EXPOSURES, raw) for raw in app.log.read(EXPOSURES, ranges)]
        assert not any(decoded.dead.num_rows for decoded in tables)
        rows = [row for decoded in tables for row in decoded.table.to_pylist()]
        return [row for row in rows if row["user_id"] == user]

    eventually(lambda: len(logged()) == len(answers), 10)
    explored = 0
    for row in logged():
        answer = answers[row["request_id"]]
        assert row["model_version"] == answer["model_version"]
        assert row["policy"] == answer["policy"] == "epsilon-greedy:0.2"
        assert row["ts"] == answer["ts"]
        for shown, item in zip(row["items"], answer["items"], strict=True):
            assert shown["item_id"] == item["item_id"]
            assert shown["position"] == item["position"]
            assert shown["propensity"] == item["propensity"]
            assert shown["placement"] == "front page"
            explored += shown["propensity"] < 0.1
    assert explored > 0


def test_a_hypothetical_answer_is_not_logged(app: Running) -> None:
    user = f"replayed {uuid.uuid4().hex}"
    assert ask(app, user, ts=1_700_000_000_000)["ts"] == 1_700_000_000_000
    marker = ask(app, f"{user} live")["request_id"]

    def users() -> list[str]:
        ranges = {p: (0, end) for p, end in app.log.latest(EXPOSURES).items()}
        tables = [decode(EXPOSURES, raw).table for raw in app.log.read(EXPOSURES, ranges)]
        return [row["user_id"] for t in tables for row in t.to_pylist() if marker]

    eventually(lambda: f"{user} live" in users(), 10)
    assert user not in users()


def test_an_item_put_a_second_ago_can_be_recommended_from_its_text(app: Running) -> None:
    item_id = f"new/{uuid.uuid4().hex}"
    item = {
        "item_id": item_id,
        "title": "first flush darjeeling leaves",
        "ts": 1,
        "category": "tea",
    }
    assert app.http.put("/v1/items", json=item).status_code == 202
    started = time.monotonic()

    def shown() -> bool:
        teas = ask(app, "u1", num=100, details=True, context={"category": "tea"})["items"]
        return item_id in {tea["item_id"] for tea in teas}

    eventually(shown, 5)
    assert time.monotonic() - started < 5
    near = app.http.get(f"/v1/items/{item_id}/similar", params={"num": 3}).json()["items"]
    assert len(near) == 3
    assert item_id not in {other["item_id"] for other in near}
    assert app.http.put("/v1/items", json={**item, "available": False}).status_code == 202
    assert not shown()
    assert app.http.put("/v1/items", json=[{**item, "title": "back again"}]).status_code == 202
    assert shown()
    assert app.http.delete(f"/v1/items/{item_id}").status_code == 202
    assert not shown()


def test_the_model_names_its_parent_offsets_and_encoder(app: Running) -> None:
    model = app.http.get("/v1/model").json()
    assert model["version"] == app.version()
    assert model.keys() >= {"parent", "offsets", "metrics", "encoder", "created_at", "gate"}
    assert model["offsets"]["events"].keys() == {"0", "1"}


def test_health_readiness_and_metrics(app: Running) -> None:
    ask(app, "u1")
    assert app.http.get("/healthz").json() == {"status": "ok"}
    ready = app.http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["ready"] is True
    text = app.http.get("/metrics").text
    assert f"ray_rec_model_version {float(app.version())}" in text
    assert 'ray_rec_requests_total{route="/v1/recommendations",status="200"}' in text
    assert 'ray_rec_follower_lag_records{partition="0",topic="events"}' in text
    assert "ray_rec_exposures_waiting" in text


BAD: list[tuple[str, str, bytes, int, str]] = [
    ("POST", "/v1/recommendations", b"", 400, ""),
    ("POST", "/v1/recommendations", b"{", 400, ""),
    ("POST", "/v1/recommendations", b'"text"', 422, ""),
    ("POST", "/v1/recommendations", b"[" * 100_000, 422, ""),
    (
        "POST",
        "/v1/recommendations",
        b'{"user_id": "u", "context": {"a": ' + b"[" * 100_000,
        400,
        "",
    ),
    ("POST", "/v1/recommendations", b'{"user_id": "a\xff"}', 400, ""),
    ("POST", "/v1/recommendations", rb'{"user_id": "a\ud800"}', 400, ""),
    ("POST", "/v1/recommendations", b'{"user_id": NaN}', 400, ""),
    ("POST", "/v1/recommendations", b"{}", 422, "user_id"),
    ("POST", "/v1/recommendations", b'{"user_id": 7}', 422, "user_id"),
    ("POST", "/v1/recommendations", b'{"user_id": ""}', 422, "user_id"),
    ("POST", "/v1/recommendations", b'{"user_id": "%s"}' % (b"x" * 257), 422, "user_id"),
    ("POST", "/v1/recommendations", b'{"user_id": "u", "num": 0}', 422, "num"),
    ("POST", "/v1/recommendations", b'{"user_id": "u", "num": 501}', 422, "num"),
    ("POST", "/v1/recommendations", b'{"user_id": "u", "num": "5"}', 422, "num"),
    ("POST", "/v1/recommendations", b'{"user_id": "u", "num": 1e400}', 422, "num"),
    ("POST", "/v1/recommendations", b'{"user_id": "u", "nmu": 5}', 422, "nmu"),
    ("POST", "/v1/recommendations", b'{"user_id": "u", "context": []}', 422, "context"),
    (
        "POST",
        "/v1/recommendations",
        b'{"user_id": "u", "context": {"category": 3}}',
        422,
        "context.category",
    ),
    ("POST", "/v1/recommendations", b'{"user_id": "u", "exclude": "i"}', 422, "exclude"),
    ("POST", "/v1/recommendations", b'{"user_id": "u", "exclude": [1]}', 422, "exclude[0]"),
    ("POST", "/v1/recommendations", b'{"user_id": "u", "explain": 1}', 422, "explain"),
    ("POST", "/v1/recommendations", b'{"user_id": "u", "ts": -1}', 422, "ts"),
    ("POST", "/v1/events", b"[]", 422, ""),
    ("POST", "/v1/events", b"{}", 422, "events"),
    ("POST", "/v1/events", b'{"events": []}', 422, "events"),
    ("POST", "/v1/events", b'{"events": {}}', 422, "events"),
    ("POST", "/v1/events", b'{"events": [1', 400, ""),
    ("PUT", "/v1/items", b"[]", 422, ""),
    ("PUT", "/v1/items", b"[1", 400, ""),
    ("GET", "/v1/items/tea-1/similar?num=0", b"", 422, "num"),
    ("GET", "/v1/items/tea-1/similar?num=ten", b"", 422, "num"),
    ("GET", "/v1/items/no-such-item/similar", b"", 404, ""),
    ("DELETE", "/v1/items/no-such-item", b"", 404, ""),
    ("GET", "/v1/nothing", b"", 404, ""),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "field"), BAD)
def test_bad_input_gets_a_4xx_that_names_the_field(
    app: Running, method: str, path: str, body: bytes, status: int, field: str
) -> None:
    headers = {"Content-Type": "application/json"} if body else {}
    response = app.http.request(method, path, content=body, headers=headers)
    assert response.status_code == status, response.text
    error = response.json()["errors"][0]
    assert error["field"] == field
    assert error["reason"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "item_id"),
        (b"7", ""),
        (b"", ""),
        (b'{"item_id": "x"}', "title"),
        (b'{"item_id": "x", "title": "t", "ts": 1, "price": -1}', "price"),
        (b'[{"item_id": "x", "title": 5, "ts": 1}]', "title"),
    ],
)
def test_bad_items_are_rejected_by_field(app: Running, body: bytes, field: str) -> None:
    response = app.http.put("/v1/items", content=body)
    assert response.status_code == 422, response.text
    (rejected,) = response.json()["rejected"]
    assert rejected["field"] == field


def test_a_body_that_is_too_long_is_refused(app: Running) -> None:
    body = b'{"events": ["' + b"x" * (17 << 20) + b'"]}'
    response = app.http.post("/v1/events", content=body)
    assert response.status_code == 413


def test_a_swap_under_load_fails_no_request_and_mixes_no_versions(
    app: Running, publish: Callable[[], int]
) -> None:
    old = app.version()
    stop = time.monotonic() + 30
    seen: list[dict[str, Any]] = []

    def load(worker: int) -> None:
        with httpx.Client(base_url=app.url) as client:
            while time.monotonic() < stop and (not seen or seen[-1]["model_version"] == old):
                response = client.post("/v1/recommendations", json={"user_id": f"u{worker}"})
                assert response.status_code == 200
                seen.append(response.json())

    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load, worker) for worker in range(4)]
        eventually(lambda: len(seen) > 20, 20)
        new = publish()
        for future in loads:
            future.result()
    assert {answer["model_version"] for answer in seen} == {old, new}


def test_a_rollback_is_seen_within_two_seconds_and_holds(
    app: Running, publish: Callable[[], int]
) -> None:
    old = app.version()
    new = publish()
    eventually(lambda: ask(app, "u1")["model_version"] == new, 5)
    app.registry.rollback()
    started = time.monotonic()
    eventually(lambda: ask(app, "u1")["model_version"] == old, 5)
    assert time.monotonic() - started < 2
    newer = publish()
    time.sleep(1.0)  # longer than the registry is polled
    assert ask(app, "u1")["model_version"] == old
    app.registry.release()
    eventually(lambda: ask(app, "u1")["model_version"] == newer, 5)
