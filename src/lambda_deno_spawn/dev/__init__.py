"""The developer's side: command line, emulator, packaging. Never shipped in a layer."""
