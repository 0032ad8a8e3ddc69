"""Wiring builds everything: it alone reads the environment, knows the shells and starts processes."""

from baseai.wiring.command import main

__all__ = ["main"]
