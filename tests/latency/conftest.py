"""A network whose graph is made once for all tests of times."""

from __future__ import annotations

import pytest

from tests.latency.networks import twins
from trpexport.latency.blanks import Blanks


@pytest.fixture(scope="session")
def blanks(tmp_path_factory: pytest.TempPathFactory) -> Blanks:
    return Blanks(twins(), tmp_path_factory.mktemp("blanks"))
