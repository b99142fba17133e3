"""The fork of a loaded Deno: a small library preloaded into it, and its other end."""
