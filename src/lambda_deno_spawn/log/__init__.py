"""The log: what the supervisor writes, and what workers write through it."""
