"""The version, where code that must not import the package itself can read it."""

__version__ = "0.1.0"
