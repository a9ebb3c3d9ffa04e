"""A closed-loop HTTP load: each of N connections sends its next request when the last is answered.

Plain asyncio streams, because a slower client would measure itself.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Load:
    """What a run of requests took; `failed` counts answers that were not 2xx."""

    rps: float
    p50_ms: float
    p99_ms: float
    requests: int
    failed: int


def post_load(
    host: str, port: int, path: str, bodies: Sequence[bytes], concurrency: int, seconds: float
) -> Load:
    """Send the bodies in turn for so many seconds and return rates and latencies."""
    requests = [_request(host, path, body) for body in bodies]
    return asyncio.run(_run(host, port, requests, concurrency, seconds))


def _request(host: str, path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _run(
    host: str, port: int, requests: Sequence[bytes], concurrency: int, seconds: float
) -> Load:
    times: list[float] = []
    failed = 0
    end = time.perf_counter() + seconds

    async def connection(first: int) -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection(host, port)
        turn = first
        while time.perf_counter() < end:
            start = time.perf_counter()
            writer.write(requests[turn % len(requests)])
            status = await _answer(reader)
            times.append(time.perf_counter() - start)
            failed += not 200 <= status < 300
            turn += concurrency
        writer.close()

    begin = time.perf_counter()
    await asyncio.gather(*(connection(i) for i in range(concurrency)))
    spent = time.perf_counter() - begin
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    return Load(len(times) / spent, float(p50), float(p99), len(times), failed)


async def _answer(reader: asyncio.StreamReader) -> int:
    """Read one response and return its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    if fields.get(b"transfer-encoding") == b"chunked":
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    else:
        await reader.readexactly(int(fields.get(b"content-length", b"0")))
    return int(head.split(b" ", 2)[1])
