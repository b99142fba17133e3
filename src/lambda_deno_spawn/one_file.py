"""The supervisor's modules from one file of byte code, instead of from sixty.

The runtime layer has one such file for each version of Python it is made for, named
``pythonX.Y``; the start scripts call ``use``. Without the file, or if it was made by
another Python, modules are imported as usual. The layer holds the sources as well, for
tracebacks. Decision 0034.
"""

from __future__ import annotations

import marshal
import sys

# Known as members of importlib.machinery and importlib.util, which are not imported.
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

PYC_HEADER_BYTES = 16  # PEP 552: magic number, flags, hash or date and size
PACKAGE = "__init__"
# The newest version of marshal's format that does not depend on reference counts.
MARSHAL_VERSION = 2


def pack(modules: Mapping[str, bytes]) -> bytes:
    """Return the file for modules.

    Args:
        modules: Content of ``.pyc`` files of one version of Python, by the paths of
            their sources.
    """
    [magic] = {content[: len(MAGIC_NUMBER)] for content in modules.values()}
    codes = {path: modules[path][PYC_HEADER_BYTES:] for path in sorted(modules)}
    return magic + marshal.dumps(codes, MARSHAL_VERSION)


def use(folder: str) -> None:
    """Import modules from the file for this Python from now on.

    Args:
        folder: Where the file and the modules' sources are.
    """
    version = "{}.{}".format(*sys.version_info)
    try:
        with open(f"{folder}/python{version}", "rb") as file:
            content = file.read()
    except OSError:
        return
    if content.startswith(MAGIC_NUMBER):
        codes = marshal.loads(memoryview(content)[len(MAGIC_NUMBER) :])
        sys.meta_path.insert(0, _Importer(folder, codes))


class _Importer:
    """Finds and loads modules for the import system (importlib.abc)."""

    def __init__(self, folder: str, codes: dict[str, bytes]) -> None:
        self._folder = folder
        self._codes: dict[str, tuple[str, bytes]] = {}
        for path, code in codes.items():
            name = path.removesuffix(".py").replace("/", ".")
            self._codes[name.removesuffix(f".{PACKAGE}")] = (path, code)

    def find_spec(
        self, name: str, _path: object = None, _target: object = None
    ) -> ModuleSpec | None:
        """Return how a module is made; None: it is not in the file."""
        if name not in self._codes:
            return None
        path = self._codes[name][0]
        # It has all that the import system asks of a loader.
        spec = ModuleSpec(name, self, origin=path)  # type: ignore[arg-type]
        if path.endswith(f"/{PACKAGE}.py"):
            folder = path.rpartition("/")[0]
            spec.submodule_search_locations = [f"{self._folder}/{folder}"]
        return spec

    def create_module(self, _spec: ModuleSpec) -> None:
        """Let the import system make an ordinary module."""

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code."""
        path, code = self._codes.pop(module.__name__)
        module.__file__ = f"{self._folder}/{path}"
        exec(marshal.loads(code), module.__dict__)
