"""Serving invocations: the loop, one invocation, the workers that serve it."""
