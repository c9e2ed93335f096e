"""Packages of the extra ``data``, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from trpexport.errors import MissingDependencyError
from trpexport.installing import install_command


def require(module: str, package: str, purpose: str) -> Any:
    """Import a module.

    Args:
        module: its dotted name.
        package: what PyPI calls it.
        purpose: what needs it, for the message.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{purpose} needs the package {package}: {install_command('data')}"
        ) from error
