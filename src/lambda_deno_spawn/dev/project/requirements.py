"""What the runtime needs of what it runs on."""

DENO_MINIMUM = (2, 9)  # older ones lack flags that the runtime gives
