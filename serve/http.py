"""The HTTP surface of a replica, as one FastAPI application; runs under Serve or bare uvicorn."""

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, Response

from ray_rec.errors import InvalidRecord, LogError
from ray_rec.events import EVENTS, ITEMS, Item, Record, check_time, decode_one, key_of
from ray_rec.events.schema import Label
from ray_rec.serving.answers import Request as Question
from ray_rec.serving.engine import NotReady
from ray_rec.serving.replica import Replica
from serve.bodies import (
    MAX_NUM,
    BadRequest,
    EventsBody,
    ItemsBody,
    RecommendationsBody,
    openapi_body,
    parse,
    raw_body,
    told,
)
from serve.measure import Measured

Num = Annotated[int, Query(ge=1, le=MAX_NUM)]

_RECOMMENDATIONS = msgspec.json.Decoder(RecommendationsBody)
_EVENTS = msgspec.json.Decoder(EventsBody)
_ITEMS = msgspec.json.Decoder(ItemsBody)
_ANSWER = msgspec.json.Encoder()
_PAGE = Path(__file__).with_name("index.html")


def create_app(replica: Callable[[], Replica], page: bool = True) -> FastAPI:
    """Return the application; `replica` is asked at each request, `page` adds `/` and its users."""
    app = FastAPI(title="ray_rec", docs_url="/docs", redoc_url=None)
    _add_errors(app)
    _add_questions(app, replica)
    _add_records(app, replica)
    _add_operations(app, replica)
    if page:
        _add_page(app, replica)
    app.add_middleware(Measured, replica=replica)
    return app


def reply(value: object, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(_ANSWER.encode(value), status, media_type="application/json")


def _add_errors(app: FastAPI) -> None:
    def errors(status: int, *found: dict[str, str]) -> Response:
        return reply({"errors": found}, status)

    @app.exception_handler(BadRequest)
    async def bad_request(_request: Request, error: BadRequest) -> Response:
        return errors(error.status, *error.errors)

    @app.exception_handler(RequestValidationError)
    async def bad_parameter(_request: Request, error: RequestValidationError) -> Response:
        found = [{"field": str(e["loc"][-1]), "reason": str(e["msg"])} for e in error.errors()]
        return errors(422, *found)

    @app.exception_handler(NotReady)
    async def not_ready(_request: Request, error: NotReady) -> Response:
        return errors(503, {"field": "", "reason": str(error)})

    @app.exception_handler(LogError)
    async def no_log(_request: Request, error: LogError) -> Response:
        return errors(503, {"field": "", "reason": f"the log takes no records: {error}"})

    @app.exception_handler(404)
    async def no_such_thing(request: Request, error: HTTPException) -> Response:
        return errors(404, {"field": "", "reason": f"{error.detail}: {request.url.path}"})


def _add_questions(app: FastAPI, replica: Callable[[], Replica]) -> None:
    @app.post("/v1/recommendations", openapi_extra=openapi_body(RecommendationsBody))
    async def recommendations(request: Request) -> Response:
        """Answer what the user should see next, and log what was shown."""
        here, body = replica(), parse(_RECOMMENDATIONS, await raw_body(request))
        question = _question(body)
        # In a thread: a busy event loop would hide waiting requests from Serve's autoscaler.
        run = asyncio.get_running_loop().run_in_executor
        return reply(await run(here.answering, here.recommend, question))

    @app.get("/v1/items/{item_id:path}/similar")
    async def similar(item_id: str, num: Num = 10) -> Response:
        """Answer the items most like this one."""
        here = replica()
        run = asyncio.get_running_loop().run_in_executor
        items = await run(here.answering, here.engine.similar, item_id, num)
        if items is None:
            raise HTTPException(404, "no such item, or its text is not encoded yet")
        return reply({"item_id": item_id, "items": items})


def _question(body: RecommendationsBody) -> Question:
    return Question(
        user_id=body.user_id,
        request_id=uuid.uuid4().hex,
        num=body.num,
        exclude=body.exclude,
        category=told(body.context, "category"),
        item=told(body.context, "item_id"),
        query=told(body.context, "query"),
        placement=told(body.context, "placement", Label),
        context=body.context,
        explain=body.explain,
        details=body.details,
        ts=body.ts,
    )


def _add_records(app: FastAPI, replica: Callable[[], Replica]) -> None:
    @app.post("/v1/events", openapi_extra=openapi_body(EventsBody))
    async def events(request: Request) -> Response:
        """Append events to the log; 202 once they are durable there."""
        body = parse(_EVENTS, await raw_body(request))
        return await _append(replica(), EVENTS, body.events, "events")

    @app.put("/v1/items", openapi_extra=openapi_body(Item | list[Item]))
    async def items(request: Request) -> Response:
        """Add or change one item or an array of them."""
        body = await raw_body(request)
        one = body.lstrip()[:1] != b"["
        return await _append(replica(), ITEMS, [body] if one else parse(_ITEMS, body), "")

    @app.delete("/v1/items/{item_id:path}")
    async def remove(item_id: str) -> Response:
        """Remove an item from the catalogue."""
        here = replica()
        if here.engine.details(item_id) is None:
            raise HTTPException(404, "no such item")
        records = [Record(item_id.encode(), None, here.now_ms())]
        await asyncio.to_thread(here.append, ITEMS, records)
        return reply({"accepted": 1, "rejected": []}, 202)


async def _append(replica: Replica, topic: str, values: list[Any], name: str) -> Response:
    """Validate each value, append the good ones and wait until this replica knows them."""
    records, rejected = [], []
    for index, value in enumerate(values):
        try:
            record = decode_one(topic, bytes(value))
            if topic == EVENTS:
                check_time(record.ts, replica.now_ms())
        except InvalidRecord as error:
            field = f"{name}[{index}].{error.field}".rstrip(".")
            rejected.append({"index": index, "field": error.field, "path": field})
            rejected[-1] |= {"code": error.reason, "reason": str(error)}
            continue
        records.append(Record(key_of(topic, record), bytes(value), record.ts))
    if records:
        await asyncio.to_thread(replica.append, topic, records)
    status = 202 if records else 422
    return reply({"accepted": len(records), "rejected": rejected}, status)


def _add_operations(app: FastAPI, replica: Callable[[], Replica]) -> None:
    @app.get("/v1/model")
    async def model() -> Response:
        """Describe the version that answers here."""
        return reply(replica().manifest())

    @app.get("/healthz")
    async def healthz() -> Response:
        """Tell that the process answers."""
        return reply({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        """Tell whether a version is loaded and the log is caught up."""
        ready = await asyncio.to_thread(replica().readiness)
        return reply(ready, 200 if ready.ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Expose this replica's metrics in the text format of Prometheus."""
        text = await asyncio.to_thread(replica().metrics_text)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI, replica: Callable[[], Replica]) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(_PAGE.read_text(encoding="utf-8"))

    @app.get("/v1/users")
    async def users(num: Num = 12) -> Response:
        """List the users seen last, for the page."""
        return reply({"users": replica().engine.profiles.users(num)})

    @app.get("/v1/users/{user_id:path}/history")
    async def history(user_id: str, num: Num = 10) -> Response:
        """Return the user's last events, newest first, for the page."""
        return reply(
            {"user_id": user_id, "events": replica().engine.profiles.history(user_id, num)}
        )
