"""Checks of a function and of the isolation between its invocations."""
