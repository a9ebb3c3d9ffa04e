"""Commands as a user types them, in this process."""

import sys
from typing import Any

import msgspec
import pytest

from ray_rec.cli.main import main


def ray_rec(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Run `ray-rec` with these arguments in the working folder; return what it says as JSON."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ray-rec", *arguments, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    said: dict[str, Any] = msgspec.json.decode(capsys.readouterr().out)
    return said
