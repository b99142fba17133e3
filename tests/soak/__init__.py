"""Long runs with a seed: fuzzed bytes, and thousands of hostile events.

Short versions run with the test suite; ``python -m tests.soak`` is for the long ones.
"""
