"""The replica that this process serves.

Serve pickles deployment classes by value, so what their methods share with the HTTP application
has to live behind functions of a plain module.
"""

from fastapi import FastAPI

from ray_rec.serving.replica import Replica
from serve.http import create_app

_held: list[tuple[Replica, bool]] = []


def hold(replica: Replica, page: bool) -> None:
    """Serve this replica from now on, with or without the page."""
    _held[:] = [(replica, page)]


def held() -> Replica:
    """Return the replica of this process."""
    return _held[0][0]


def http() -> FastAPI:
    """Return the application of the replica of this process."""
    return create_app(held, page=_held[0][1])
