"""The Ostler daemon: everything but the desktop. Imports no Qt."""

__version__ = "0.1.0"
