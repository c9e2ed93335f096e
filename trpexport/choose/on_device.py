"""Choosing on a device: the network goes there, the choice comes back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from trpexport.choose.base import CalibrationImages, Choice, Chooser
from trpexport.errors import DeviceError
from trpexport.lowrank.chain import moved
from trpexport.networks.base import Network
from trpexport.networks.torch.devices import AUTO, device_named, full_precision, told_of
from trpexport.stages import Stages


@dataclass(frozen=True)
class OnDevice:
    """Lets a chooser calibrate on a device.

    Without images nothing is calibrated, and the network stays where it is.

    Attributes:
        chooser: chooses schemes and ranks.
        device: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is one and it does, else the
            processor; a network that is on another device already stays there.
    """

    chooser: Chooser
    device: str = AUTO

    def __call__(
        self, network: Network, images: CalibrationImages | None, stages: Stages, label: str | None
    ) -> Choice:
        """Choose for a network; the chains are where its layers are.

        Raises:
            DeviceError: the device that was asked for is not there, or can't do it.
            TrpexportError: as the chooser.
        """
        device = device_named(self.device)
        if images is None or (self.device == AUTO and network.device.type != "cpu"):
            device = network.device
        if device.type == "cpu":
            choice = self.chooser(network.on(device), images, stages, label)
            return self._back(choice, network)
        try:
            with full_precision():
                there = network.on(device)
                choice = self.chooser(there, images, stages, label)
        except torch.OutOfMemoryError as error:
            failure = DeviceError(
                f"the memory of {told_of(device)} is too small to calibrate the network: do it on "
                "the processor"
            )
            if self.device != AUTO:
                raise failure from error
        except DeviceError as error:
            failure = error
            if self.device != AUTO:
                raise
        else:
            where = f"calibrated on {told_of(device)}"
            notes = (where,) if there.device.type == device.type else ()
            return self._back(replace(choice, notes=(*choice.notes, *notes)), network)
        # Outside of the handlers, which hold what was computed there.
        stages.remark(f"calibrated on the processor: {failure}")
        return self.chooser(network, images, stages, label)

    @staticmethod
    def _back(choice: Choice, network: Network) -> Choice:
        return replace(choice, chains=moved(choice.chains, network.device))
