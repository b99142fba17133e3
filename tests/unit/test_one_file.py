"""Modules from one file of byte code, in every Python that is here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lambda_deno_spawn.dev.package.interpreter import (
    Interpreter,
    compile_sources,
    find_interpreter,
)
from lambda_deno_spawn.errors import BuildError
from lambda_deno_spawn.one_file import pack

SOURCE = Path(__file__).parents[2] / "src" / "lambda_deno_spawn"
MODULES = {
    "pack/__init__.py": b"here = __file__\n",
    "pack/inner/__init__.py": b"",
    "pack/inner/deep.py": b"from pack import here\nfrom pack.inner import data\n"
    b"def fail():\n    raise ValueError(here)\n",
}
# Not in the file: beside the sources, and found in the usual way.
REST = {"pack/inner/data.py": b"value = 7\n"}


@pytest.fixture(params=["3.11", "3.12", "3.13", "3.14"])
def interpreter(request: pytest.FixtureRequest) -> Interpreter:
    try:
        return find_interpreter(request.param, os.environ)
    except BuildError as error:
        pytest.skip(str(error))


@pytest.fixture
def folder(tmp_path: Path, interpreter: Interpreter) -> Path:
    """Return a folder with sources, and the file made of some of them."""
    folder = tmp_path / "code"
    for name, text in (MODULES | REST).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text)
    (folder / "lambda_deno_spawn").mkdir()
    (folder / "lambda_deno_spawn" / "__init__.py").touch()
    own = (SOURCE / "one_file.py").read_bytes()
    (folder / "lambda_deno_spawn" / "one_file.py").write_bytes(own)
    compiled = compile_sources(
        interpreter, MODULES, str(folder), tmp_path / "scratch", os.environ
    )
    assert len(compiled) == len(MODULES)
    modules = {}
    for name, content in compiled.items():
        parent, _, file = name.partition("/__pycache__/")
        modules[f"{parent}/{file.partition('.')[0]}.py"] = content
    (folder / f"python{interpreter.version}").write_bytes(pack(modules))
    return folder


def run(interpreter: Interpreter, folder: Path, code: str) -> str:
    setup = (
        "import sys; sys.dont_write_bytecode = True\n"
        f"sys.path.append({str(folder)!r})\n"
        f"from lambda_deno_spawn.one_file import use\nuse({str(folder)!r})\n"
    )
    done = subprocess.run(
        [interpreter.path, "-I", "-S", "-c", setup + code],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOOK = """
import pack.inner.deep as deep
print(deep.here, deep.__name__, deep.__package__, deep.data.value)
try:
    deep.fail()
except ValueError:
    import traceback
    print(traceback.format_exc())
"""


def test_modules_and_packages_are_what_they_are_otherwise(
    interpreter: Interpreter, folder: Path
) -> None:
    found = run(interpreter, folder, LOOK)
    assert found.splitlines()[0] == (
        f"{folder}/pack/__init__.py pack.inner.deep pack.inner 7"
    )
    assert f'File "{folder}/pack/inner/deep.py", line 4, in fail\n' in found
    assert "raise ValueError(here)" in found, "a traceback shows the source"
    (folder / f"python{interpreter.version}").unlink()
    assert run(interpreter, folder, LOOK) == found


def test_sources_are_not_looked_at(interpreter: Interpreter, folder: Path) -> None:
    for name in MODULES:
        (folder / name).write_text("this is not Python")
    assert "pack.inner 7" in run(interpreter, folder, LOOK)


@pytest.mark.parametrize("content", [b"", b"x", b"\x00\x00\r\n" + b"\xff" * 100])
def test_a_file_of_another_python_is_not_used(
    interpreter: Interpreter, folder: Path, content: bytes
) -> None:
    (folder / f"python{interpreter.version}").write_bytes(content)
    assert "pack.inner 7" in run(interpreter, folder, LOOK)


def test_the_same_modules_give_the_same_file() -> None:
    modules = {"b.py": b"magi" + b"0" * 12 + b"code", "a.py": b"magi" + b"1" * 12}
    assert pack(modules) == pack(dict(reversed(modules.items())))
    assert pack(modules).startswith(b"magi")
    with pytest.raises(ValueError, match="too many values"):
        pack(modules | {"c.py": b"else" + b"0" * 12})
