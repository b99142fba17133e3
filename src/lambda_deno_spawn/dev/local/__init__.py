"""Lambda on this machine: an emulated environment around the real runtime."""
