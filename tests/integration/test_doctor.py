"""``doctor``: this machine, functions as people have them, and a hostile pair."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.dev.doctor.checks import Check, Status, examine
from lambda_deno_spawn.dev.project.function import (
    InvokeOptions,
    find_function,
    parse_variables,
)
from lambda_deno_spawn.native.control import library_path
from tests.fixtures.command import as_text, run_command
from tests.integration.harness import marked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
COMMAND_LIMIT_S = 200.0
MARK_VARIABLE = "LDS_DOCTOR_TEST"
# What leaks from one event to the next for now; the tests fail when it does not.
KNOWN: set[str] = set()
# What lies in the memory of the process: if the control keeps it, the probe works.
IN_PROCESS = {
    "global-variable", "module-state", "prototype", "json-stringify", "fetch", "timer",
    "unfinished-work", "web-worker", "log-line", "listening-port", "open-connection",
    "environment-variable", "working-directory", "umask", "event-listener",
    "signal-listener", "session-storage",
}  # fmt: skip
CHILDREN = {
    "child", "child-pipes", "child-session", "child-double-fork", "child-renamed",
    "child-clean-environment", "child-ignores-signals", "child-stopped",
    "child-everything",
}  # fmt: skip

ON_DISK = {"module-loader", "module-cache", "imported-code", "left-files"}
OF_FORKS = {
    "module-timer", "module-random", "module-socket", "module-worker", "module-child",
    "randomness", "pid", "control-channel",
}  # fmt: skip
CAN_FORK = library_path() is not None

pytestmark = pytest.mark.deno


@dataclass(frozen=True)
class Place:
    """Where a command runs, and how to find what it leaves behind.

    Attributes:
        environ: Its environment. The first ``sleep`` of its PATH is ours, which tells
            when it starts, and is known by its file: the probe runs it without
            environment and under other names.
    """

    root: Path
    mark: str
    environ: dict[str, str]

    def run(
        self,
        *arguments: str | Path,
        before: Sequence[str] = (),
        cwd: Path | None = None,
        **environ: str,
    ) -> subprocess.CompletedProcess[str]:
        environ = {**self.environ, **environ}
        if not before:
            done = run_command(
                *arguments, cwd=cwd, environ=environ, limit_s=COMMAND_LIMIT_S
            )
            return as_text(done)
        return subprocess.run(
            [
                *before,
                *(sys.executable, "-m", "lambda_deno_spawn"),
                *map(str, arguments),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            env=environ,
            cwd=cwd,
            check=False,
        )

    def survivors(self) -> set[int]:
        found = marked(f"{MARK_VARIABLE}={self.mark}")
        for entry in Path("/proc").iterdir():
            # It may end while we look; a zombie has no program.
            with contextlib.suppress(OSError):
                if (entry / "exe").readlink().is_relative_to(self.root):
                    found.add(int(entry.name))
        return found


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with made_place(tmp_path) as made:
        yield made


@contextlib.contextmanager
def made_place(root: Path) -> Iterator[Place]:
    programs = root / "programs"
    programs.mkdir()
    os.mkfifo(root / "started")
    shutil.copy(shutil.which("sleep") or "/bin/sleep", programs / "real-sleep")
    sleep = programs / "sleep"
    sleep.write_text(
        f"#!/bin/sh\n[ ! -e {root}/watched ] || echo > {root}/started\n"
        f'exec {programs}/real-sleep "$@"\n',
        encoding="utf-8",
    )
    sleep.chmod(0o755)
    mark = uuid.uuid4().hex
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LAMBDA_DENO_", "AWS_"))
    }
    environ = {
        **kept,
        MARK_VARIABLE: mark,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "NO_COLOR": "1",
    }
    made = Place(root, mark, environ)
    yield made
    left = made.survivors()
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert left == set()


def checks_of(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    """Return the checks of a JSON output by id, after a look at the whole."""
    output = json.loads(done.stdout)
    assert set(output) == {"ok", "checks"}
    for check in output["checks"]:
        assert set(check) == {"group", "id", "status", "found", "advice"}
        assert check["status"] in ("ok", "warning", "problem")
        assert bool(check["advice"]) == (check["status"] != "ok"), check
    problems = [c for c in output["checks"] if c["status"] == "problem"]
    assert output["ok"] == (problems == [])
    assert done.returncode == (1 if problems else 0), done.stderr
    ids = [check["id"] for check in output["checks"]]
    assert len(set(ids)) == len(ids)
    return {check["id"]: check for check in output["checks"]}


def examined(
    place: Place,
    folder: Path | None = None,
    handler: str = "",
    *assignments: str,
    **environ: str,
) -> dict[str, Check]:
    """Return the checks by id; faster than by way of the command line."""
    options = None
    if folder is not None:
        found = find_function(folder, handler or None)
        options = InvokeOptions(found, variables=parse_variables(assignments))
    checks = examine({**place.environ, **environ}, options)
    assert len({check.id for check in checks}) == len(checks)
    assert [c for c in checks if bool(c.advice) == (c.status is Status.OK)] == []
    return {check.id: check for check in checks}


def function(root: Path, text: str = "", **files: str) -> Path:
    folder = root / "function"
    folder.mkdir()
    text = text or "export const handler = () => 1;"
    (folder / "function.ts").write_text(text, encoding="utf-8")
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content, encoding="utf-8")
    return folder


# --- the machine -----------------------------------------------------------------


def test_this_machine_and_an_example_are_fit(place: Place) -> None:
    checks = checks_of(place.run("doctor", EXAMPLES / "hello", "-o", "json"))
    assert {c["id"] for c in checks.values() if c["status"] == "problem"} == set()
    groups = list(dict.fromkeys(check["group"] for check in checks.values()))
    assert groups == ["Deno", "Python", "System", "Function", "Caches", "Sizes"]
    assert "PyPI" in checks["deno-binary"]["found"]
    assert checks["handler"]["found"].startswith("function.handler: function.ts in ")
    line = checks["command-line"]["found"]
    assert " --allow-net --allow-env --allow-sys " in line
    assert line.count("$TMPDIR") == 2
    assert "deno + runtime + function" in checks["total"]["found"]


def test_machine_alone_is_a_plain_table_where_no_terminal_is(place: Place) -> None:
    done = place.run("doctor")
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first.split() == ["check", "status", "found"]
    assert last.endswith(" ok") or " ok, " in last
    # On explain, if there is something to be explained.
    assert done.stderr.startswith("Note: ") is (" ok, " in last)
    assert "\x1b" not in done.stdout
    assert not re.search(r"^(Function|Caches)", done.stdout, re.MULTILINE)


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("script", "check", "found"),
    [
        (
            "echo 'deno 2.8.1 (stable, release, x86_64-unknown-linux-gnu)'",
            "deno-version",
            "deno 2.8.1, and 2.9 is needed",
        ),
        ("echo nonsense", "deno-version", "no version: it printed something else"),
        (
            "echo \"version 'GLIBC_2.27' not found\" >&2; exit 1",
            "deno-version",
            "no version: version 'GLIBC_2.27' not found",
        ),
        (
            '[ "$1" != --version ] || exec echo deno 2.9.0; exit 3',
            "deno-start",
            "cannot run a program: exit code 3",
        ),
    ],
    ids=["old", "no-deno", "old-glibc", "broken"],
)
def test_unfit_deno_is_a_problem_with_advice(
    place: Place, script: str, check: str, found: str
) -> None:
    binary = place.root / "deno"
    binary.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    binary.chmod(0o755)
    checks = examined(place, LAMBDA_DENO_BIN=str(binary))
    assert checks[check].status is Status.PROBLEM
    assert checks[check].found == found
    assert "install " in checks[check].advice
    assert checks["deno-binary"].found == f"{binary}, found by LAMBDA_DENO_BIN"


def test_missing_deno_is_a_problem_with_advice(place: Place) -> None:
    done = place.run("doctor", "-o", "json", LAMBDA_DENO_BIN="/nowhere/deno")
    check = checks_of(done)["deno-binary"]
    assert check["status"] == "problem"
    assert check["found"].startswith("Cannot use LAMBDA_DENO_BIN: its value is '/now")
    assert "pip install deno" in check["advice"]


# --- functions -------------------------------------------------------------------


def test_function_that_is_too_large_is_a_problem(place: Place) -> None:
    folder = function(place.root)
    with (folder / "model.bin").open("wb") as file:
        file.truncate(300 * 1024 * 1024)
    checks = examined(place, folder)
    assert checks["total"].status == "problem"
    assert checks["function"].found.startswith("300 MB, zipped about ")


def test_module_that_is_not_cached_is_a_problem_with_the_command_to_run(
    place: Place,
) -> None:
    text = "export { default as handler } from 'npm:left-pad';"
    folder = function(place.root, text, deno_json="{}")
    cache = str(place.root / "deno_dir")
    checks = examined(place, folder, DENO_DIR=cache)
    assert checks["modules"].status == "problem"
    assert "left-pad" in checks["modules"].found
    assert f"deno cache {folder}/function.ts" in checks["modules"].advice
    assert checks["lock-file"].advice.endswith("install --entrypoint function.ts")
    assert checks["deno-dir"].found.startswith(f"{cache}; ")


def test_module_that_does_not_parse_is_a_problem(place: Place) -> None:
    checks = examined(place, function(place.root, "const x = ;"))
    assert checks["modules"].status == "problem"
    assert checks["modules"].found.startswith("SyntaxError")


def test_module_is_not_run(place: Place) -> None:
    text = "Deno.exit(9); export const handler = () => 1;"
    checks = examined(place, function(place.root, text))
    assert checks["modules"].status is checks["modules-on-lambda"].status is Status.OK


def test_permission_set_that_is_used_is_named_and_judged(place: Place) -> None:
    folder = function(
        place.root,
        deno_json='{"permissions": {"default": {"run": ["git"]}, "test": {}}}',
    )
    checks = examined(place, folder)
    found = "deno.json has default, test; the set `default` is used"
    assert checks["permission-sets"].found == found
    assert checks["sandbox"].status == "warning"
    assert checks["sandbox"].found.startswith("disabled by --allow-run: ")
    assert checks["environment"].status == "ok"
    assert " -P " in checks["command-line"].found
    assert checks["lock-file"].found.startswith("none, as nothing is imported")


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("assignment", "check", "status", "found"),
    [
        (
            "LAMBDA_DENO_PERMISSIONS=all",
            "sandbox",
            "warning",
            "disabled by --allow-all:",
        ),
        ("LAMBDA_DENO_PERMISSIONS=none", "environment", "ok", "all but the runtime's"),
        ("LAMBDA_DENO_ENV=STAGE", "environment", "ok", "only STAGE"),
        ("LAMBDA_DENO_WRAM=off", "settings", "warning", "unknown: LAMBDA_DENO_WR"),
        ("LAMBDA_DENO_WARM=x", "settings", "problem", "Cannot use LAMBDA_DENO_WARM: "),
    ],
    ids=lambda value: value if "=" in value else "",
)
def test_setting_of_the_function_is_judged(
    place: Place, assignment: str, check: str, status: str, found: str
) -> None:
    folder = EXAMPLES / "hello"
    checks = examined(place, folder, "", assignment)
    assert checks[check].status == status
    assert checks[check].found.startswith(found)


def test_handler_in_a_layer_is_named_by_its_path(place: Place) -> None:
    layer = place.root / "layer"
    layer.mkdir()
    (layer / "wrap.mjs").write_text("export const handler = () => 1;")
    check = examined(place, function(place.root), f"{layer}/wrap.handler")["handler"]
    assert check.status == "ok"
    assert check.found == f"{layer}/wrap.handler: {layer}/wrap.mjs"


def test_handler_that_is_not_there_is_a_problem(place: Place) -> None:
    folder = function(place.root)
    check = examined(place, folder, "other.handler")["handler"]
    assert check.status == "problem"
    assert check.found.startswith("Cannot find the file of handler 'other.handler'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "Cannot find function 'nowhere'"),
        (["--strategy", "fresh"], "Cannot use --strategy without --isolation"),
        (["--handler", "a.b"], "Cannot use --handler: no function is given"),
        (["--isolation", str(EXAMPLES / "hello")], "Cannot use FUNCTION with --isol"),
        (["--isolation", "--env", "AB=1"], "Cannot use --env with --isolation: "),
        (["--isolation", "--strategy", "other"], "Usage: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_command_that_cannot_be_carried_out_is_a_usage_error(
    place: Place, arguments: list[str], message: str
) -> None:
    done = place.run("doctor", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(message)


# --- isolation -------------------------------------------------------------------


@pytest.fixture(scope="module")
def isolation(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Any], int]:
    """What the hostile pair found, and the exit code; nothing of it is left."""
    with made_place(tmp_path_factory.mktemp("isolation")) as place:
        temp_dir = place.root / "tmp"
        temp_dir.mkdir()
        done = place.run("doctor", "--isolation", "-o", "json", TMPDIR=str(temp_dir))
        assert done.stderr == ""
        assert list(temp_dir.iterdir()) == []
        return json.loads(done.stdout), done.returncode


@pytest.mark.long
def test_nothing_leaks_from_a_fresh_process(
    isolation: tuple[dict[str, Any], int],
) -> None:
    report, exit_code = isolation
    leaked = [check for check in report["checks"] if check["leaked"]]
    assert {check["id"] for check in leaked} == KNOWN
    assert {check["forked"] for check in report["checks"]} == (
        {False} if CAN_FORK else {None}
    )
    assert report["leaked"] == len(leaked)
    assert report["ok"] == (not KNOWN)
    assert exit_code == (1 if KNOWN else 0)


def test_every_way_is_tried_and_leaks_in_one_process_for_all_events(
    isolation: tuple[dict[str, Any], int],
) -> None:
    report, _ = isolation
    no_proof = [check for check in report["checks"] if not check["control"]]
    assert no_proof == []
    assert [check for check in report["checks"] if check["leaked"] is None] == []
    ids = {c["id"] for c in report["checks"] if c["permissions"] == "all"}
    assert ids >= IN_PROCESS | CHILDREN | ON_DISK | OF_FORKS


def test_runtime_survives_the_hostile_event(
    isolation: tuple[dict[str, Any], int],
) -> None:
    report, _ = isolation
    assert [check for check in report["survival"] if not check["ok"]] == []
    assert {check["id"] for check in report["survival"]} == {
        "second-event-answered",
        "same-supervisor",
    }


def test_report_has_the_documented_shape(
    isolation: tuple[dict[str, Any], int],
) -> None:
    report, _ = isolation
    assert set(report) == {"strategy", "ok", "leaked", "checks", "survival"}
    assert report["strategy"] == "fresh"
    for check in report["checks"]:
        assert set(check) == {
            "id", "permissions", "planted", "control", "leaked", "evidence",
            "forked", "fork_evidence",
        }  # fmt: skip
        assert all(isinstance(check[name], str) for name in ("planted", "evidence"))


def test_default_permissions_deny_what_the_hostile_event_tries(
    isolation: tuple[dict[str, Any], int],
) -> None:
    report, _ = isolation
    evidence = {
        check["id"]: check["evidence"]
        for check in report["checks"]
        if check["permissions"] == "default"
    }
    for name, kind in {
        "child": "run",
        "file-in-tmp": "write",
        "file-beside-function": "write",
        "file-in-deno-dir": "write",
        "main-module": "write",
        "runtime-api": "net",
    }.items():
        assert evidence[name].startswith(f"Requires {kind} access to "), name


@pytest.mark.root
@pytest.mark.long
def test_isolation_is_the_same_for_an_unprivileged_user_on_a_read_only_root(
    place: Place,
) -> None:
    as_lambda = [sys.executable, "-m", "tests.as_lambda"]
    done = place.run("doctor", "--isolation", before=as_lambda, cwd=ROOT)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    leaked = {line.split(":")[0] for line in lines if " LEAKED " in line}
    assert leaked == KNOWN
    assert "no, proves nothing" not in done.stdout
    if CAN_FORK:
        assert "not tried" not in done.stdout
    assert done.returncode == (1 if KNOWN else 0)


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143)],
    ids=["SIGINT", "SIGTERM"],
)
def test_signal_ends_the_hostile_event_and_all_that_it_started(
    place: Place, number: signal.Signals, exit_code: int
) -> None:
    (place.root / "watched").touch()
    with (
        open(place.root / "started", "r+b", buffering=0) as started,  # noqa: PTH123
        subprocess.Popen(
            [sys.executable, "-m", "lambda_deno_spawn", "doctor", "--isolation"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=place.environ,
        ) as process,
    ):
        assert started.read(1)  # until the first child runs, bounded by pytest-timeout
        process.send_signal(number)
        output, log = process.communicate(timeout=COMMAND_LIMIT_S)
    assert process.returncode == exit_code
    assert (output, log) == (b"", b"")
    assert place.survivors() == set()
