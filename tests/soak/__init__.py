"""Long, seeded runs: fuzzed bytes, and thousands of hostile events.

Short versions run with the test suite; ``python -m tests.soak`` starts the long ones.
"""
