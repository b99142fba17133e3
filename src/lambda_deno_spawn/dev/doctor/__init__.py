"""Checks of a machine, of a function, and of the isolation between invocations."""
