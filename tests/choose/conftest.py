"""A network whose options are measured once for all tests of choices."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.artifact.networks import SHAPE, tiny
from tests.choose.networks import gatherer_of, smooth
from trpexport.choose.gathering import Gatherer
from trpexport.choose.table import SensitivityTable, sensitivity_table
from trpexport.networks.torch.network import TorchNetwork


class Measured(NamedTuple):
    """A small network, its moments on images, and its options under all schemes."""

    network: TorchNetwork
    gatherer: Gatherer
    table: SensitivityTable


@pytest.fixture(scope="session")
def measured() -> Measured:
    network = TorchNetwork.open(tiny(), SHAPE)
    gatherer = gatherer_of(network, smooth(32, SHAPE))
    return Measured(network, gatherer, sensitivity_table(network, gatherer))
