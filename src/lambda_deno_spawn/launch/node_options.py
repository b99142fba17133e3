"""Node's own variables: ``NODE_OPTIONS``, ``NODE_PATH``, and the folders of layers.

Deno obeys none of them, and programs written for Lambda's Node.js runtime rely on them:
observability layers are loaded by ``NODE_OPTIONS``, packages of layers are found by
``NODE_PATH``. Specification: Node.js manual, "Command-line API" and "Loading from the
global folders"; AWS Lambda Developer Guide, "Working with layers for Node.js".
"""

from __future__ import annotations

import os
import shlex

from lambda_deno_spawn.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

NODE_OPTIONS = "NODE_OPTIONS"
NODE_PATH = "NODE_PATH"
IMPORT = "--import"
REQUIRES = ("--require", "-r")
# Options that are V8's, under the same name.
V8_OPTIONS = ("--max-old-space-size", "--max-semi-space-size", "--stack-trace-limit")
# Options that are in effect anyway, or have no meaning for a function.
NEEDLESS = ("--enable-source-maps", "--no-warnings", "--no-deprecation")


class Preload(NamedTuple):
    """A module to load before the handler's.

    Attributes:
        specifier: As it was written.
        is_required: It is loaded with ``require`` instead of ``import``.
    """

    specifier: str
    is_required: bool


class NodeOptions(NamedTuple):
    """``NODE_OPTIONS``, parsed.

    Attributes:
        preloads: Modules to load first, in this order.
        v8_flags: Flags for V8.
        ignored: Options that have no effect here.
    """

    preloads: tuple[Preload, ...] = ()
    v8_flags: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @classmethod
    def parse(cls, environ: Mapping[str, str]) -> NodeOptions:
        """Read the variable; text that cannot be read is ignored as a whole."""
        text = environ.get(NODE_OPTIONS, "")
        try:
            words = shlex.split(text)
        except ValueError:  # a quotation that does not end
            return cls(ignored=(text,))
        preloads: list[Preload] = []
        v8_flags: list[str] = []
        ignored: list[str] = []
        while words:
            word = words.pop(0)
            name, equals, value = word.partition("=")
            name = name.replace("_", "-")
            if name == IMPORT or name in REQUIRES:
                if not equals:
                    value = words.pop(0) if words else ""
                if value:
                    preloads.append(Preload(value, name in REQUIRES))
                else:
                    ignored.append(word)
            elif name in V8_OPTIONS:
                if not equals:
                    value = words.pop(0) if words else ""
                v8_flags.append(f"{name}={value}")
            elif name not in NEEDLESS:
                ignored.append(word)
        # Node loads what is required before what is imported.
        preloads.sort(key=lambda preload: not preload.is_required)
        return cls(tuple(preloads), tuple(v8_flags), tuple(ignored))

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the log about options that have no effect."""
        return tuple(
            f"{NODE_OPTIONS}: {option} has no effect in Deno" for option in self.ignored
        )


def package_folders(environ: Mapping[str, str], layers_root: str) -> list[str]:
    """Return the folders in which ``require`` looks last: ``NODE_PATH``, then layers.

    Args:
        environ: The function's variables.
        layers_root: Where layers are extracted.
    """
    folders = [path for path in environ.get(NODE_PATH, "").split(":") if path]
    root = os.path.join(layers_root, "nodejs")
    if os.path.isdir(root):
        versions = [
            name
            for name in os.listdir(root)
            if name[:4] == "node" and name[4:].isdigit()
        ]
        versions.sort(key=lambda name: -int(name[4:]))
        for inner in (*versions, ""):
            path = os.path.join(root, inner, "node_modules")
            if os.path.isdir(path):
                folders.append(path)
    return list(dict.fromkeys(folders))
