"""Request bodies: strict msgspec structs, and errors that name the field."""

import re
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Request
from msgspec import Meta

from ray_rec.events.schema import Context, Id, Millis

MAX_BODY_BYTES = 16 << 20
MAX_NUM = 500
MAX_BATCH = 10_000
MAX_WORDS_CHARS = 1_000

Words = Annotated[str, Meta(max_length=MAX_WORDS_CHARS)]

T = TypeVar("T")

_FIELD = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_NAMED = re.compile(r"^Object (?:missing required|contains unknown) field `(?P<name>[^`]*)`")


class BadRequest(Exception):
    """A request that cannot be served: status, and per problem the field and the reason."""

    def __init__(self, status: int, *errors: tuple[str, str]) -> None:
        super().__init__(f"{status}: {errors}")
        self.status = status
        self.errors = [{"field": field, "reason": reason} for field, reason in errors]


class RecommendationsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/recommendations`.

    `context.category` keeps items of that category, `context.item_id` is the item on the page, and
    `context.query` the words looked for, `context.placement` where items will stand (see
    `Request`); all else in it is logged alone.
    """

    user_id: Id
    num: Annotated[int, Meta(ge=1, le=MAX_NUM)] = 10
    context: Context | None = None
    exclude: Annotated[tuple[Id, ...], Meta(max_length=MAX_BATCH)] = ()
    explain: bool = False
    details: bool = False
    ts: Millis | None = None


class EventsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/events`; each event is validated by itself."""

    events: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MAX_BATCH)]


ItemsBody = Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MAX_BATCH)]


async def raw_body(request: Request) -> bytes:
    """Read a body of at most MAX_BODY_BYTES that is UTF-8; BadRequest otherwise."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise BadRequest(413, ("", f"the body has more than {MAX_BODY_BYTES} bytes: split it"))
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise BadRequest(400, ("", f"the body is not UTF-8: {error}")) from None
    return bytes(body)


def parse(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode a body; BadRequest 400 when it is no JSON, 422 naming the field when it is wrong."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise BadRequest(422, field_and_reason(str(error))) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(400, ("", f"the body is not JSON: {error}")) from None


def field_and_reason(message: str) -> tuple[str, str]:
    """Split a msgspec message.

    >>> field_and_reason("Expected `int` >= 1 - at `$.num`")
    ('num', 'Expected `int` >= 1')
    >>> field_and_reason("Object contains unknown field `nmu`")
    ('nmu', 'Object contains unknown field `nmu`')
    """
    found = _FIELD.search(message)
    path = found["path"] if found else ""
    reason = message[: found.start()] if found else message
    if named := _NAMED.match(reason):
        path = f"{path}.{named['name']}" if path else named["name"]
    return path, reason


def told(context: Context | None, key: str, kind: Any = Words) -> str | None:
    """Return what the context has under a key, which must be of a kind where it is given."""
    raw = (context or {}).get(key)
    if raw is None:
        return None
    try:
        found: str | None = msgspec.json.decode(raw, type=kind | None)
        return found
    except msgspec.ValidationError as error:
        raise BadRequest(422, (f"context.{key}", str(error))) from None


def openapi_body(kind: Any) -> dict[str, Any]:
    """Return the OpenAPI part that describes a JSON body of this type."""
    (schema,), components = msgspec.json.schema_components(
        [kind], ref_template="#/components/schemas/{name}"
    )
    if "$ref" in schema:
        schema = components[schema["$ref"].rsplit("/", 1)[-1]]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
