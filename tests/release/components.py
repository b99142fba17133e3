"""Writes the list of components of a release (an SBOM, in CycloneDX's form).

``python -m tests.release.components ENVIRONMENT FILE`` lists the packages of an
environment in which only the wheel and what it needs are installed. The generator does
not know the version of the project itself, which pyproject.toml has from the code.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from lambda_deno_spawn import __version__

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)


class ComponentError(Exception):
    """The list is not that of this release."""


def main(environment: str, file: str) -> int:
    """Write the list of an environment into a file."""
    generator = Path(sys.executable).with_name("cyclonedx-py")
    options = ("--pyproject", ROOT / "pyproject.toml", "--output-reproducible")
    done = subprocess.run(
        [generator, "environment", environment, *options],
        stdout=subprocess.PIPE,
        check=True,
    )
    lock = (ROOT / "locks" / "cli.txt").read_text("utf-8")
    document = completed(json.loads(done.stdout), lock)
    Path(file).write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    return 0


def completed(document: dict[str, Any], lock: str) -> dict[str, Any]:
    """Return a list with the version of the project, after comparing it with a lock.

    Raises:
        ComponentError: A package is not in the lock, in this version, or says nothing
            about its licence.
    """
    pins = dict(PIN.findall(lock))
    for component in document["components"]:
        name, version = component["name"], component["version"]
        if pins.get(re.sub(r"[-_.]+", "-", name).lower()) != version:
            raise ComponentError(f"locks/cli.txt does not have {name} {version}")
        if not component.get("licenses"):
            raise ComponentError(f"the licence of {name} {version} is unknown")
    project = document["metadata"]["component"]
    project |= {
        "version": __version__,
        "purl": f"pkg:pypi/{project['name']}@{__version__}",
    }
    return document


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except ComponentError as error:
        sys.exit(f"Cannot list the components: {error}")
