"""The recording of an invocation: its form, and which of it is a secret."""
