"""Every error that ray_rec raises on purpose, in one tree.

Messages say what was seen, what was expected and what to do.

RayRecError
├── ConfigError           a value, key, file or URL of the configuration is wrong
├── InvalidRecord         one record breaks its schema (a dead letter on the log, a 4xx over HTTP)
├── LogError              the log cannot do what was asked
│   ├── LogUnavailable    no broker or file answers at this URL
│   ├── TopicMissing      the topic does not exist
│   └── OffsetGap         offsets that were asked for are gone (retention)
├── StateError            windows were applied out of order, or a snapshot is not one
│   └── StateLost         a part of the state is gone; the run goes back to its last checkpoint
├── ModelError            weights, encoder or tensors do not fit
├── RegistryError         a folder is not a registry, or cannot be read or written
│   ├── VersionMissing    no such version
│   ├── VersionConflict   a version exists with other content; versions are never rewritten
│   └── VersionCorrupt    a file does not have the digest of its manifest
└── DataError             a data set or table cannot be imported
"""

from collections.abc import Iterable
from difflib import get_close_matches


class RayRecError(Exception):
    """Base of all errors of ray_rec; the command line prints its message without a traceback."""


class ConfigError(RayRecError):
    """A value, key, file or URL of the configuration is wrong."""


class InvalidRecord(RayRecError):
    """One record breaks its schema: `reason` names how, `field` where (empty: the whole record)."""

    def __init__(self, reason: str, field: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field


class LogError(RayRecError):
    """The log cannot do what was asked."""


class LogUnavailable(LogError):
    """No broker or file answers at this URL."""


class TopicMissing(LogError):
    """The topic does not exist."""


class OffsetGap(LogError):
    """Offsets that were asked for are gone, usually by retention."""


class StateError(RayRecError):
    """Windows were applied out of order, or a snapshot is not one."""


class StateLost(StateError):
    """A part of the state is gone; the run goes back to its last checkpoint."""


class ModelError(RayRecError):
    """Weights, encoder or tensors do not fit."""


class RegistryError(RayRecError):
    """A folder is not a registry, or cannot be read or written."""


class VersionMissing(RegistryError):
    """No such version."""


class VersionConflict(RegistryError):
    """A version exists with other content; versions are never rewritten."""


class VersionCorrupt(RegistryError):
    """A file does not have the digest of its manifest."""


class DataError(RayRecError):
    """A data set or table cannot be imported."""


def meant(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: which was probably meant, if any.

    >>> meant("prise", ("price", "share"))
    "; did you mean 'price'?"
    """
    near = get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
