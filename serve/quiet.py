"""Keeps Ray's own log lines off a screen that shows progress; its log files stay complete."""

import logging
import os

_CHATTER = "worker processes have been started|graceful_shutdown failed"


def quiet() -> None:
    """Set what Ray reads when it is imported and started; call it before either."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _CHATTER)
    logging.disable(logging.WARNING)  # Ray sets its loggers' levels anew when it starts
