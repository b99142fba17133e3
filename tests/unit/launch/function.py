"""A function on disk, as the tests of this folder use it."""

from __future__ import annotations

from pathlib import Path

from lambda_deno_spawn.config import Settings
from lambda_deno_spawn.launch.command import (
    DenoCommand,
    deno_command,
)

RUNTIME_API = "127.0.0.1:9001"
HOSTS = ["127.0.0.1", "localhost", "127.0.0.0/8", "0.0.0.0", "[::1]", "[::]"]


class Function:
    """A task root, a state folder and a binary under ``tmp_path``."""

    def __init__(self, root: Path) -> None:
        self.task_root = root / "task"
        self.state_dir = root / "state"
        self.layers = root / "layers"
        self.binary = root / "bin" / "deno"
        for folder in (self.task_root, self.state_dir):
            folder.mkdir()
        write_program(self.binary)
        self.write("function.ts")

    def write(self, name: str, text: str = "") -> Path:
        path = self.task_root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def settings(self, **variables: str) -> Settings:
        environ = {
            "AWS_LAMBDA_RUNTIME_API": RUNTIME_API,
            "_HANDLER": "function.handler",
            "LAMBDA_TASK_ROOT": str(self.task_root),
            "LAMBDA_DENO_BIN": str(self.binary),
            **variables,
        }
        return Settings.from_environ(environ, "/")

    def command(
        self, environ: dict[str, str] | None = None, **variables: str
    ) -> DenoCommand:
        settings = self.settings(**variables)
        return deno_command(settings, environ or {}, str(self.state_dir))


def write_program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)
    return path
