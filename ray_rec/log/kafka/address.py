"""Where the brokers are and how to get in: URL and environment to client settings.

RAY_REC_KAFKA_SECURITY_PROTOCOL   PLAINTEXT (default), SSL, SASL_PLAINTEXT or SASL_SSL
RAY_REC_KAFKA_SASL_MECHANISM      PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
RAY_REC_KAFKA_SASL_USERNAME       the user
RAY_REC_KAFKA_SASL_PASSWORD_FILE  a file that holds the password and nothing else
RAY_REC_KAFKA_SSL_CAFILE, …_SSL_CERTFILE, …_SSL_KEYFILE   PEM files
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ray_rec.errors import ConfigError
from ray_rec.log.base import URL_EXAMPLES

PREFIX = "RAY_REC_KAFKA_"
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_KEYS = (
    "SECURITY_PROTOCOL",
    "SASL_MECHANISM",
    "SASL_USERNAME",
    "SASL_PASSWORD_FILE",
    "SSL_CAFILE",
    "SSL_CERTFILE",
    "SSL_KEYFILE",
)


@dataclass(frozen=True)
class Address:
    """Brokers and credentials; the password never shows in its repr."""

    servers: tuple[str, ...]
    protocol: str = "PLAINTEXT"
    mechanism: str = "PLAIN"
    username: str = ""
    password: str = field(default="", repr=False)
    files: Mapping[str, str] = field(default_factory=dict)
    """Of cafile, certfile and keyfile those that are set."""

    @classmethod
    def of(cls, url: str, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the URL and RAY_REC_KAFKA_*; raise ConfigError naming what is wrong."""
        servers = tuple(url.removeprefix("kafka://").split(","))
        if not url.startswith("kafka://") or not all(map(_is_server, servers)):
            raise ConfigError(f"log URL {url!r} names no broker; expected {URL_EXAMPLES}")
        given = {key: environment.get(PREFIX + key, "") for key in _KEYS}
        protocol = _one_of("SECURITY_PROTOCOL", given, _PROTOCOLS)
        mechanism = _one_of("SASL_MECHANISM", given, _MECHANISMS)
        password = ""
        if protocol.startswith("SASL"):
            if not given["SASL_USERNAME"] or not given["SASL_PASSWORD_FILE"]:
                raise ConfigError(
                    f"{protocol} needs {PREFIX}SASL_USERNAME and {PREFIX}SASL_PASSWORD_FILE"
                )
            password = Path(_existing("SASL_PASSWORD_FILE", given)).read_text().strip()
        names = {"cafile": "SSL_CAFILE", "certfile": "SSL_CERTFILE", "keyfile": "SSL_KEYFILE"}
        files = {name: _existing(key, given) for name, key in names.items() if given[key]}
        return cls(servers, protocol, mechanism, given["SASL_USERNAME"], password, files)

    @property
    def url(self) -> str:
        """The log URL, without secrets."""
        return f"kafka://{','.join(self.servers)}"

    def python_settings(self) -> dict[str, Any]:
        """Return connection settings of kafka-python."""
        settings: dict[str, Any] = {"bootstrap_servers": list(self.servers)}
        settings["security_protocol"] = self.protocol
        settings |= {f"ssl_{name}": path for name, path in self.files.items()}
        if self.username:
            settings["sasl_mechanism"] = self.mechanism
            settings["sasl_plain_username"] = self.username
            settings["sasl_plain_password"] = self.password
        return settings

    def librdkafka_settings(self) -> dict[str, Any]:
        """Return connection settings of librdkafka."""
        settings = {"bootstrap.servers": ",".join(self.servers), "security.protocol": self.protocol}
        names = {"cafile": "ca", "certfile": "certificate", "keyfile": "key"}
        settings |= {f"ssl.{names[name]}.location": path for name, path in self.files.items()}
        if self.username:
            settings["sasl.mechanism"] = self.mechanism
            settings["sasl.username"] = self.username
            settings["sasl.password"] = self.password
        return settings


def _is_server(text: str) -> bool:
    found = re.fullmatch(r"(?:[\w.-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})", text)
    return bool(found) and 0 < int(found[1]) < 65536 if found else False


def _one_of(key: str, given: Mapping[str, str], allowed: tuple[str, ...]) -> str:
    value = given[key] or allowed[0]
    if value not in allowed:
        raise ConfigError(f"{PREFIX}{key} is {value!r}; expected one of {', '.join(allowed)}")
    return value


def _existing(key: str, given: Mapping[str, str]) -> str:
    if not Path(given[key]).is_file():
        raise ConfigError(f"{PREFIX}{key}: there is no file {given[key]!r}")
    return given[key]
