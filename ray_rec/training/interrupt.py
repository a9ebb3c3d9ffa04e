"""Ctrl-C and SIGTERM as a request to finish what is at hand; asked twice, the run breaks off."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that the first signal sets; the second raises KeyboardInterrupt.

    Handlers are put back at the end. Only the main thread may use it, as Python wants it.
    """
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    with signals_kept():
        for number in SIGNALS:
            signal.signal(number, ask)
        yield stop


@contextmanager
def signals_kept() -> Iterator[None]:
    """Put the handlers of this moment back at the end; outside the main thread, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
