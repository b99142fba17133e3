"""What it takes to start Deno: the binary, the handler, flags, variables, cache."""
