"""Processes and their folders: start, watch, end, sweep."""
