"""Where each command is: module and function."""

from __future__ import annotations

COMMANDS = {
    "train": "train:train",
    "inspect": "inspect:inspect",
    "sensitivity": "sensitivity:sensitivity",
    "decompose": "decompose:decompose",
    "finetune": "finetune:finetune",
    "export": "export:export",
    "tune": "tune:tune",
    "sweep": "sweep:sweep",
    "quantize": "quantize:quantize",
    "verify": "verify:verify",
    "flops": "flops:flops",
    "bench": "bench:bench",
    "profile": "profile:profile",
    "emulate": "emulate:emulate",
    "compare": "compare:compare",
    "eval": "eval:eval_",
    "gate": "gate:gate",
    "report": "report:report",
    "arm-setup": "arm_setup:arm_setup",
    "doctor": "doctor:doctor",
}
