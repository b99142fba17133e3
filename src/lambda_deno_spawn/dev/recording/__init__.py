"""Recordings on this machine: written, found, run again and compared."""
