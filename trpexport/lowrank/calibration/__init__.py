"""Decomposition calibrated on unlabelled images: factors, ranks and schemes by output error.

gatherer = Gatherer(model, images, input_shape)
calibrate(model, plan, images)                     a plan's ranks, factors fitted to outputs
sensitivity_table(model, images, ...)              what each layer loses at each rank
Budgeter(model, table, gatherer, ...).to_fraction(0.5)    the best network for a budget
"""

from __future__ import annotations

from trpexport.lowrank.calibration.allotment import allot, plan_for
from trpexport.lowrank.calibration.budget import Budgeter, Outcome
from trpexport.lowrank.calibration.gathering import Gatherer
from trpexport.lowrank.calibration.layerwise import Calibrated, LayerCalibration, calibrate
from trpexport.lowrank.calibration.table import SensitivityTable, sensitivity_table

__all__ = [
    "Budgeter",
    "Calibrated",
    "Gatherer",
    "LayerCalibration",
    "Outcome",
    "SensitivityTable",
    "allot",
    "calibrate",
    "plan_for",
    "sensitivity_table",
]
