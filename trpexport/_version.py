"""The version of the library; everything that says it takes it from here."""

__version__ = "0.1.0"
