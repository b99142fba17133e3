"""The parts of a start of Deno: binary, handler, flags, variables, cache."""
