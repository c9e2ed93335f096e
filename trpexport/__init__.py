"""Low-rank CNNs from training to the edge.

The public names stand in ``__init__.pyi``, once, for type checkers and for this file. Each is
loaded when it is first used, so that ``import trpexport`` is instant and the commands that need no
torch never load it.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from trpexport._version import __version__ as __version__

# What stands in the place of functions of older versions.
_FORMER = {
    **dict.fromkeys(("make_plan", "factorize", "revise_plan"), "decompose"),
    **dict.fromkeys(("load_checkpoint", "load_bundle"), "load"),
    **dict.fromkeys(("export_bundle", "export_checkpoint"), "export"),
    **dict.fromkeys(("verify_bundle", "verify_models", "verify_against_golden"), "verify"),
    **dict.fromkeys(("count_onnx", "count_modules"), "count"),
}


@cache
def _homes() -> dict[str, str]:
    """Return the module of every public name."""
    import ast
    from importlib.resources import files

    stub = files(__name__).joinpath("__init__.pyi").read_text(encoding="utf-8")
    imports = [node for node in ast.parse(stub).body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted(_homes())
    if name.startswith("_") or name not in _homes():
        if (now := _FORMER.get(name)) is not None:  # a name of its own: no guess is added to it
            raise AttributeError(f"{__name__}.{name} is gone: use {__name__}.{now}", name=name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_homes()[name]), name)


def __dir__() -> list[str]:
    return sorted(_homes())
