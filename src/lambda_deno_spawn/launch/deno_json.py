"""A function's ``deno.json`` or ``deno.jsonc``: where it is, and what it says."""

from __future__ import annotations

import os

from lambda_deno_spawn.launch.files import is_file, read_text
from lambda_deno_spawn.records import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from lambda_deno_spawn.launch.files import AnyPath


def find_config(task_root: AnyPath) -> str | None:
    """Return the function's Deno configuration file, None if it has none."""
    for name in ("deno.json", "deno.jsonc"):
        path = os.path.join(task_root, name)
        if is_file(path):
            return path
    return None


def config_flags(task_root: AnyPath, config: AnyPath | None) -> list[str]:
    """Return the flags that point Deno at the function's configuration.

    Without them it would look beside the entry module.

    Args:
        task_root: The function's folder.
        config: Its configuration file, None if it has none.
    """
    if config is not None:
        # A lock file is never written: on Lambda the task root is read-only.
        locked = is_file(os.path.join(task_root, "deno.lock"))
        lock = "--frozen" if locked else "--no-lock"
        return ["--config", str(config), lock]
    if os.path.isdir(os.path.join(task_root, "node_modules")):
        return ["--no-config", "--node-modules-dir=manual"]
    return ["--no-config"]


def permission_sets(config: AnyPath) -> dict[str, Any]:
    """Return the permission sets of a Deno configuration, none if it is unreadable."""
    permissions = config_content(config).get("permissions")
    return permissions if isinstance(permissions, dict) else {}


def config_content(config: AnyPath) -> dict[str, Any]:
    """Return a Deno configuration, empty if it is unreadable."""
    import json  # 2 ms that a function without a configuration need not pay

    try:
        content = json.loads(_without_comments(read_text(config, "utf-8")))
    except (ValueError, RecursionError):
        return {}  # Deno reports the syntax error when it refuses to start
    return content if isinstance(content, dict) else {}


def _without_comments(text: str) -> str:
    """Turn JSON with comments and trailing commas into JSON."""
    import re

    token = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/|,(?=\s*[}\]])', re.DOTALL)
    without = token.sub(lambda m: m[0] if m[0].startswith('"') else "", text)
    # A comma may have stood in front of a comment.
    return token.sub(lambda m: m[0] if m[0].startswith('"') else "", without)
