"""Benchmarks of the runtime: ratios, measured side by side in one run.

A millisecond here is not a millisecond in Lambda, so no benchmark has a target in
milliseconds. Every contestant is measured by the same code, its turns alternate with
those of the contestant it is compared with, and the figure is the quotient of the two
medians: a machine that slows down half-way slows both. ``python -m bench`` runs all.
"""
