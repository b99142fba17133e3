"""``python -m lambda_deno_spawn`` is the command line tool."""

from lambda_deno_spawn.dev.cli import main

if __name__ == "__main__":
    main()
