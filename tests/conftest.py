"""Fixtures that every test may use."""

from pathlib import Path

import pytest

from tests.model_server import model_server, model_server_process

__all__ = ["model_server", "model_server_process"]

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of open data sets beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the open data sets are not beside this checkout (../shared/data)")
    return SHARED_DATA
