"""The entry module: the program that Deno is told to run.

It imports ``js/runtime.js`` and tells it how to load the handler's file. Decision 0012.
"""

from __future__ import annotations

import os

from lambda_deno_spawn.config import Strategy
from lambda_deno_spawn.records import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lambda_deno_spawn.config import Settings
    from lambda_deno_spawn.launch.files import AnyPath
    from lambda_deno_spawn.launch.node_options import Preload

RUNTIME_JS = os.path.join(
    os.path.dirname(os.path.dirname(__file__)), "js", "runtime.js"
)
# Modules that only some processes need, in the order of ``start``'s arguments: for
# processes that listen.
RUNTIME_PARTS = ("server.js",)
# The first line of a bundle, before the names of the built-in modules that it imports.
BUILTINS = b"// imports: "
NODE = b"node:"
FIRST_LINE_LIMIT_BYTES = 4096
# Bytes that need no escape in the path of a file's URL.
URL_BYTES = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/~@:+,=&$!*'();-._"
)


def entry_source(
    module: AnyPath,
    runtime_js: AnyPath = RUNTIME_JS,
    parts: Sequence[str] = RUNTIME_PARTS,
    preloads: Sequence[Preload] = (),
    task_root: AnyPath = "/",
    builtins: Sequence[str] = (),
) -> str:
    """Return the entry module for a handler's file.

    A literal import needs no read permission, and Deno's caches see it; its failure can
    still be caught (decision 0012).

    Args:
        module: The handler's file.
        runtime_js: Where ``runtime.js`` is; the others are beside it.
        parts: Which of ``RUNTIME_PARTS`` are needed, from the first on. Deno reads
            every file that is named, whether it is loaded or not.
        preloads: Modules to load before the handler's.
        task_root: The function's folder, which they are found from.
        builtins: What the handler's module imports; see ``builtins_of``. Templates load
            the source map, so that their copies need not.
    """
    folder = os.path.dirname(runtime_js)
    has_suffix = os.path.splitext(module)[1] != ""
    load = f"import({_js_url(module)})" if has_suffix else _require(module)
    loads = [f"() => {load}"]
    first = "".join(f"await {_preload(one, task_root)}; " for one in preloads)
    if builtins:
        imports = ", ".join(f'import("{name}")' for name in builtins)
        first += f"if (!isTemplate) await Promise.allSettled([{imports}]); "
    if first:
        argument = "isTemplate" if builtins else ""
        loads = [f"async ({argument}) => {{ {first}return await {load}; }}"]
    loads += [f"() => import({_js_url(os.path.join(folder, part))})" for part in parts]
    return (
        f"import {{ start }} from {_js_url(runtime_js)};\nstart({', '.join(loads)});\n"
    )


def builtins_of(bundle: AnyPath) -> Sequence[str]:
    """Return the modules of Node that a bundle imports, if it imports nothing else.

    When Deno loads a module that imports another one which is not loaded yet, it reads
    the first one's source map, to name the line of the import in an error. That is a
    fifth of the time of the whole load. If all imports are loaded before, Deno reads
    the map when it first makes a stack trace (decision 0055).

    Args:
        bundle: The handler's file. If ``build`` has written it, the names are in its
            first line.
    """
    try:
        with open(bundle, "rb") as file:
            line = file.readline(FIRST_LINE_LIMIT_BYTES)
    except OSError:
        return ()
    if not (line.startswith(BUILTINS) and line.endswith(b"\n")):
        return ()
    names = line[len(BUILTINS) :].split()
    if not all(name.startswith(NODE) and URL_BYTES.issuperset(name) for name in names):
        return ()
    return [name.decode() for name in names]


def _require(module: AnyPath) -> str:
    """Return the expression that loads a file without a suffix: it is CommonJS."""
    import json

    url = _js_url(module)
    path = json.dumps(os.path.abspath(os.fsdecode(module)))
    return (
        'import("node:module").then((module) => '
        f'({{ "module.exports": module.createRequire({url})({path}) }}))'
    )


def _preload(preload: Preload, task_root: AnyPath) -> str:
    """Return the expression that loads a module of ``NODE_OPTIONS``."""
    import json

    specifier = preload.specifier
    is_path = specifier.startswith(("/", "./", "../"))
    is_url = ":" in specifier
    if not preload.is_required and (is_path or is_url):
        path = os.path.join(os.fsdecode(task_root), specifier)
        return f"import({json.dumps(specifier) if is_url else _js_url(path)})"
    # A package is found from the function's folder; Deno would look beside this module.
    base = _js_url(os.path.join(os.fsdecode(task_root), "index.js"))
    return (
        'import("node:module").then((module) => '
        f"module.createRequire({base})({json.dumps(specifier)}))"
    )


def needed_parts(settings: Settings) -> Sequence[str]:
    """Return which of ``RUNTIME_PARTS`` a function's processes need."""
    return RUNTIME_PARTS if settings.strategy is Strategy.SERVER else ()


def file_url(path: AnyPath) -> str:
    """Return a file's URL as Deno spells it."""
    # urllib's quote would cost a cold start 2 ms for its import.
    absolute = os.path.abspath(os.fsdecode(path)).encode(errors="surrogateescape")
    return "file://" + "".join(
        chr(byte) if byte in URL_BYTES else f"%{byte:02X}" for byte in absolute
    )


def _js_url(path: AnyPath) -> str:
    """Return a file's URL as a string of JavaScript, in which nothing needs an escape.

    A URL holds ``URL_BYTES`` and % only: no quotation mark, no backslash.
    """
    return f'"{file_url(path)}"'
