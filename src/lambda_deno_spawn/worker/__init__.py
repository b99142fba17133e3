"""One Deno process: its start, its invocations, its end."""
