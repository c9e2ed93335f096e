"""The command line: one file a command."""

from __future__ import annotations

from .app import app, run

__all__ = ["app", "run"]
