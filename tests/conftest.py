"""Fixtures shared by all rooms."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets that lie beside the checkout; see their README for what each is good for."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"SKIPPED LOUDLY: no real data at {path.name}/ beside the checkout")
    return path
