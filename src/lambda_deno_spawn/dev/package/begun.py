"""A bundler that was started before it was known whether it is needed.

Knows what it was started for, so that a build takes it over only if it would have
started the same one. Does not know who starts it. What no build has taken over ends
with the context in which it was started. Specification: docs/build.md, "How long it
takes".
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lambda_deno_spawn.dev.package.record import now_ns
from lambda_deno_spawn.dev.package.request import ALL, bundle_path, staging_folder
from lambda_deno_spawn.dev.package.scratch import scratch_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_deno_spawn.dev.package.deno import Deno, Running


class Begun(NamedTuple):
    """The first step of a build.

    Attributes:
        scratch: Folder for temporary files; the bundle is written there.
        bundling: The bundler at work.
        started_ns: Time at which it began to read files, Unix time.
    """

    scratch: Path
    bundling: Running
    started_ns: int


_begun: list[tuple[Deno, Path, Begun]] = []


@contextlib.contextmanager
def begin(deno: Deno, source: Path) -> Iterator[Begun]:
    """Start to bundle a module; in the end, stop it and remove its files.

    Args:
        deno: The project's Deno.
        source: The handler's module.

    Raises:
        BuildError: The bundler cannot be started.
        OSError: There is no place for temporary files.
    """
    started_ns = now_ns()
    with scratch_folder() as name:
        scratch = Path(name).resolve()
        target = bundle_path(staging_folder(scratch, ALL), deno.task_root, source)
        with deno.start_bundle(source, target) as bundling:
            yield Begun(scratch, bundling, started_ns)


@contextlib.contextmanager
def begun_early(deno: Deno, source: Path) -> Iterator[None]:
    """Start to bundle a module like ``begin``, for a build that may come."""
    with begin(deno, source) as begun:
        _begun.append((deno, source, begun))
        try:
            yield
        finally:
            _begun.clear()


def take(deno: Deno, source: Path) -> Begun | None:
    """Return the bundler that was started early, if it is the one to start now."""
    if _begun and _begun[0][:2] == (deno, source):
        return _begun.pop()[2]
    return None
