"""``python -m lambda_deno_spawn`` is the command line tool."""

import sys


def main() -> None:
    """Run the command line tool, or name the package that is not installed."""
    try:
        from lambda_deno_spawn.dev.cli.app import main as run

        run()  # which imports the command
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("lambda_deno_spawn"):
            raise
        sys.exit(
            f"Cannot start lambda-deno-spawn: the package {error.name!r} is missing; "
            "install the command with everything that it needs: `pip install "
            "lambda-deno-spawn`"
        )
    except KeyboardInterrupt:
        sys.exit(130)  # as in `console`, which is not there yet


if __name__ == "__main__":
    main()
