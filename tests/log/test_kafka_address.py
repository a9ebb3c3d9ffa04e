"""Access to Kafka: from the URL, the environment and a password file."""

from pathlib import Path

import pytest

from ray_rec.errors import ConfigError
from ray_rec.log.kafka.address import Address

SECURE = {
    "RAY_REC_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "RAY_REC_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "RAY_REC_KAFKA_SASL_USERNAME": "ann",
}


def test_credentials_come_from_files_and_stay_hidden(tmp_path: Path) -> None:
    secret, ca = tmp_path / "secret", tmp_path / "ca.pem"
    secret.write_text("hush\n")
    ca.write_text("")
    given = {"SASL_PASSWORD_FILE": str(secret), "SSL_CAFILE": str(ca)}
    environment = SECURE | {f"RAY_REC_KAFKA_{key}": value for key, value in given.items()}
    address = Address.of("kafka://a:1,b:2", environment)
    assert "hush" not in repr(address)
    assert address.url == "kafka://a:1,b:2"
    assert address.python_settings() == {
        "bootstrap_servers": ["a:1", "b:2"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "ann",
        "sasl_plain_password": "hush",
        "ssl_cafile": str(ca),
    }
    assert address.librdkafka_settings() == {
        "bootstrap.servers": "a:1,b:2",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "ann",
        "sasl.password": "hush",
        "ssl.ca.location": str(ca),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "needs RAY_REC_KAFKA_SASL_USERNAME and RAY_REC_KAFKA_SASL_PASSWORD_FILE"),
        ({"RAY_REC_KAFKA_SASL_PASSWORD_FILE": "/nowhere"}, "there is no file '/nowhere'"),
        ({"RAY_REC_KAFKA_SASL_MECHANISM": "NTLM"}, "SASL_MECHANISM is 'NTLM'; expected one of"),
        ({"RAY_REC_KAFKA_SECURITY_PROTOCOL": "TLS"}, "SECURITY_PROTOCOL is 'TLS'"),
        ({"RAY_REC_KAFKA_SSL_CAFILE": "/nowhere"}, "needs|SSL_CAFILE"),
    ],
)
def test_wrong_access_settings_are_named(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Address.of("kafka://a:1", SECURE | changes)
