"""Deno on AWS Lambda with a brand-new process for every event.

The runtime is started with ``python -m lambda_deno_spawn.bootstrap``; the command
line tool is ``lambda-deno-spawn``. There is no Python API to import beyond the
version: handlers are written in TypeScript or JavaScript.
"""

__version__ = "0.2.0"
