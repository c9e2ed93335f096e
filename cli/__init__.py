"""The command line: one file a command."""

from __future__ import annotations

from .app import application, run

__all__ = ["application", "run"]
