"""Benchmarks of the runtime: ratios, measured side by side in one run.

A millisecond here is not a millisecond in Lambda, so no benchmark has a target in
milliseconds. All contestants are measured by the same code, in turns, and the result is
the ratio of two medians: if the machine slows down during the run, both become slower.
``python -m bench`` runs all.
"""
