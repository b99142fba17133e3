"""What the setting and permission sets add up to, flag by flag."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lambda_deno_spawn.errors import ConfigError
from lambda_deno_spawn.permissions import (
    STEERING,
    Grant,
    Mode,
    Permissions,
    grant,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

HOSTS = ["127.0.0.1:9001", "localhost:9001"]
DENY = "--deny-net=127.0.0.1:9001,localhost:9001"
DENY_IMPORT = "--deny-import=127.0.0.1:9001,localhost:9001"
RENICE = "--deny-sys=setPriority"
EXPECTED = (
    "none, all, default, or Deno's permission flags such as --allow-net=example.com"
)
DEFAULT = [
    "--allow-net", "--allow-env", "--allow-sys", "--allow-read=/task,/opt,\0",
    "--allow-write=\0",
]  # fmt: skip


def granted(text: str, sets: dict[str, Any] | None = None) -> Grant:
    return grant(
        Permissions.parse(text),
        sets or {},
        read_paths=("/task", "/opt"),
        task_root="/task",
        denied=HOSTS,
    )


def apart_from_hiding(flags: Iterable[str]) -> list[str]:
    """Return flags without those that hide what may not be read."""
    told = []
    for flag in flags:
        name, _, value = flag.partition("=")
        if name == "--deny-read":
            paths = [path for path in value.split(",") if path not in ("/task", "/mnt")]
            told += [f"--deny-read={','.join(paths)}"] if paths else []
        elif flag != "--ignore-read":
            told.append(flag)
    return told


KEPT = f"--ignore-env={','.join(STEERING)}"
ALONE = [
    ("", [*DEFAULT, RENICE, DENY]),
    ("  ", [*DEFAULT, RENICE, DENY]),
    ("default", [*DEFAULT, RENICE, DENY]),
    ("none", ["--cached-only"]),
    (" all ", ["--allow-all", RENICE, DENY, DENY_IMPORT]),
    ("-A", ["--allow-all", RENICE, DENY, DENY_IMPORT]),
    ("--allow-all --deny-run",
     ["--allow-all", "--deny-run", RENICE, DENY, DENY_IMPORT]),
    ("--allow-env", ["--allow-env", DENY]),
    ("--allow-env=A --allow-env=B,C", ["--allow-env=A,B,C", DENY]),
    ("--allow-env=A --allow-env", ["--allow-env", DENY]),
    ("--allow-env --allow-env=A", ["--allow-env", DENY]),
    ("--allow-read='/a b'", ["--allow-read=/a b", DENY]),
    ("-R -W=/w -NE -S=hostname",
     ["--allow-read", "--allow-write=/w", "--allow-net", "--allow-env",
      "--allow-sys=hostname", DENY]),
    ("-I=a.test", ["--allow-import=a.test", DENY, DENY_IMPORT]),
    ("--allow-import --deny-import=b.test",
     ["--allow-import", DENY, f"{DENY_IMPORT},b.test"]),
    ("--allow-env --cached-only", ["--cached-only", "--allow-env", DENY]),
    ("--ignore-env --ignore-read=/x", ["--ignore-env", DENY]),
    ("--allow-net --deny-net", ["--allow-net", "--deny-net"]),
    ("--deny-net=a.test --allow-net --deny-net=b.test:1",
     ["--allow-net", f"{DENY},a.test,b.test:1"]),
    ("--allow-sys", ["--allow-sys", RENICE, DENY]),
    ("--allow-sys --deny-sys=hostname",
     ["--allow-sys", "--deny-sys=hostname,setPriority", DENY]),
    ("--allow-sys --deny-sys", ["--allow-sys", "--deny-sys", DENY]),
    ("--allow-sys --allow-sys=setPriority", ["--allow-sys", DENY]),
    ("--allow-sys=setPriority", ["--allow-sys=setPriority", DENY]),
    ("--allow-read=$LAMBDA_TASK_ROOT,$TMPDIR --allow-write=$TMPDIR/x",
     ["--allow-read=/task,\0", "--allow-write=\0/x", DENY]),
    ("default --allow-run=git", [*DEFAULT, "--allow-run=git", RENICE, DENY]),
    ("default --allow-read=/mnt --allow-write=/mnt",
     [*DEFAULT[:3], "--allow-read=/task,/opt,\0,/mnt", "--allow-write=\0,/mnt",
      RENICE, DENY]),
    ("default --allow-write", [*DEFAULT[:4], "--allow-write", RENICE, DENY]),
    ("default --deny-net=10.0.0.0/8", [*DEFAULT, RENICE, f"{DENY},10.0.0.0/8"]),
    ("default --allow-sys=setPriority", [*DEFAULT, DENY]),
    ("default --cached-only", ["--cached-only", *DEFAULT, RENICE, DENY]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "flags"), [pytest.param(*case, id=repr(case[0])) for case in ALONE]
)
def test_flags_of_a_setting_add_up(text: str, flags: list[str]) -> None:
    found = apart_from_hiding(granted(text).flags)
    assert [flag for flag in found if flag != KEPT] == flags


SET = {
    "default": {
        "net": {"allow": True, "deny": ["10.0.0.0/8"]},
        "read": ["./data"],
        "env": ["A"],
    },
    "strict": {},
    "broad": {"all": True},
    "system": {"sys": True, "import": ["a.test"]},
    "places": {"read": ["$LAMBDA_TASK_ROOT", "x"], "write": {"allow": ["$TMPDIR"]}},
    "shut": {"net": {"deny": True}, "run": False, "ffi": None, "write": []},
    "hidden": {"env": {"ignore": True}, "read": {"deny": ["/x"], "ignore": ["/y"]}},
    "programs": {"run": ["git"]},
    "odd": ["no", "object"],
    "unknown": {"fs": True},
}
BY_SET = [
    ("", ["-P", f"{DENY},10.0.0.0/8"]),
    ("-P", ["-P", f"{DENY},10.0.0.0/8"]),
    ("-P=", ["-P", f"{DENY},10.0.0.0/8"]),
    ("--permission-set=default", ["-P", f"{DENY},10.0.0.0/8"]),
    ("-P=strict", ["-P=strict", DENY]),
    ("--permission-set=strict", ["-P=strict", DENY]),
    ("-P=broad", ["-P=broad", RENICE, DENY, DENY_IMPORT]),
    ("-P=system", ["-P=system", RENICE, DENY, DENY_IMPORT]),
    ("-P=system --allow-sys=setPriority",
     ["-P=system", DENY, DENY_IMPORT]),
    ("-P=places",
     ["-P=places", "--allow-read=/task,x", "--allow-write=\0", DENY]),
    ("-P=shut", ["-P=shut"]),
    ("-P=hidden --deny-read=/z", ["-P=hidden", "--deny-read=/x,/z", DENY]),
    ("-P=programs --cached-only", ["-P=programs", "--cached-only", DENY]),
    ("-P=odd", ["-P=odd", DENY]),
    ("-P=unknown", ["-P=unknown", DENY]),
    ("default --allow-read=/mnt --deny-net=b.test --allow-run=git",
     ["-P", "--allow-read=./data,/mnt", "--allow-run=git",
      f"{DENY},10.0.0.0/8,b.test"]),
    ("-P=strict --allow-env=B", ["-P=strict", "--allow-env=B", DENY]),
    ("none", ["--cached-only"]),
    ("all", ["--allow-all", RENICE, DENY, DENY_IMPORT]),
    ("--allow-env", ["--allow-env", DENY]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "flags"), [pytest.param(*case, id=repr(case[0])) for case in BY_SET]
)
def test_a_set_keeps_all_it_says_when_flags_are_added(
    text: str, flags: list[str]
) -> None:
    """Deno takes a flag for the set's whole entry: our denial dropped the set's own."""
    found = apart_from_hiding(granted(text, SET).flags)
    assert [flag for flag in found if flag != KEPT] == flags


STEERED = [
    ("", STEERING),
    ("all", STEERING),
    ("-A --deny-net=a.test", STEERING),
    ("--allow-env", STEERING),
    ("default --allow-run", STEERING),
    ("-P=broad", STEERING),
    # Who may set nothing, or other variables, need not be kept from it.
    ("none", ()),
    ("--allow-net --allow-import", ()),
    ("--allow-env=A,B*", ()),
    ("-P=strict", ()),
    ("--allow-env=A,HTTP_PROXY,SSL_*",
     ("HTTP_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "names"), [pytest.param(*case, id=repr(case[0])) for case in STEERED]
)
def test_nobody_sets_what_deno_obeys_and_whoever_may_sees_it(
    text: str, names: tuple[str, ...]
) -> None:
    found = granted(text, {"broad": {"all": True}, "strict": {}})
    ignored = [flag for flag in found.flags if flag.startswith("--ignore-env")]
    assert ignored == ([f"--ignore-env={','.join(names)}"] if names else [])
    assert found.steering == names


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("default --deny-env=HTTP_PROXY,DENO_*", ("HTTP_PROXY", "DENO_CERT")),
        ("default --ignore-env=HTTP_PROXY", ("HTTP_PROXY",)),
        ("default --deny-env", STEERING),
        ("--allow-env --ignore-env", STEERING),
    ],
)
def test_what_a_setting_hides_stays_hidden(text: str, hidden: tuple[str, ...]) -> None:
    found = granted(text)
    assert not set(hidden) & set(found.steering)
    assert "HTTPS_PROXY" in found.steering or hidden == STEERING
    flags = dict(flag.partition("=")[::2] for flag in found.flags)
    ignored = flags["--ignore-env"]
    assert ignored == "" or set(STEERING) <= set(ignored.split(","))


BAD = [
    ("allow-net", EXPECTED),
    ("ALL", EXPECTED),
    ("all none", EXPECTED),
    ("none --allow-net", EXPECTED),
    ("--allow-net default", EXPECTED),
    ("--allow-net --config=x", EXPECTED),
    ("--allow-net other.js", EXPECTED),
    ("--allow-hrtime", EXPECTED),
    ("--ignore-net", EXPECTED),
    ("-X", EXPECTED),
    ("-", EXPECTED),
    ("--no-prompt", EXPECTED),
    ("--cached-only=x", EXPECTED),
    ("--allow-read='/endless", EXPECTED),
    ("--allow-read=", "a value after --allow-read=, or no ="),
    ("--allow-all=x", "no value after --allow-all"),
    ("''", EXPECTED),
    ("-R=$HOME", "no other placeholder than $TMPDIR and $LAMBDA_TASK_ROOT"),
    ("--allow-write=$TMPDIRX", "no other placeholder than $TMPDIR and"),
    ("default -P", "one of default and -P, and -P only once"),
    ("-P=a -P=b", "one of default and -P, and -P only once"),
    ("default -A", "beside --allow-all no other --allow flag, no default and no -P"),
    ("-P -A", "beside --allow-all no other --allow flag"),
    ("-A --allow-net", "beside --allow-all no other --allow flag"),
]


@pytest.mark.parametrize(
    ("text", "expected"), [pytest.param(*case, id=repr(case[0])) for case in BAD]
)
def test_what_cannot_be_understood_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Permissions.parse(text)
    error = caught.value
    assert (error.variable, error.value) == ("LAMBDA_DENO_PERMISSIONS", text)
    assert error.expected.startswith(expected)


@pytest.mark.parametrize(
    "text",
    [
        "default --allow-net=a.test", "default --allow-env=A",
        "default --allow-sys=hostname", "-P=broad --allow-read=/x",
        "-P=system --allow-sys=hostname",
    ],
)  # fmt: skip
def test_a_flag_that_only_looks_as_if_it_narrowed_is_refused(text: str) -> None:
    sets = {} if text.startswith("default") else SET
    with pytest.raises(ConfigError, match="allows this without limit") as caught:
        granted(text, sets)
    assert caught.value.value == text


@pytest.mark.parametrize(
    ("sets", "found"),
    [({}, "none"), ({"strict": {}, "default": {}}, "default, strict")],
    ids=["none", "two"],
)
def test_an_unknown_set_is_refused_by_those_that_exist(
    sets: dict[str, Any], found: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        granted("-P=nope", sets)
    assert str(caught.value) == (
        "Cannot use LAMBDA_DENO_PERMISSIONS: its value is '-P=nope'; expected a "
        f"permission set of the function's deno.json, which has: {found}"
    )


def test_a_comma_in_a_set_is_refused() -> None:
    """Deno's flags have no way to write one, and flags may have to repeat the set."""
    with pytest.raises(ConfigError, match="expected no comma in it") as caught:
        granted("-P=a", {"a": {"read": ["/a,b"]}})
    assert caught.value.variable == "deno.json, permissions.a.read"


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("", False),
        ("none", False),
        ("--allow-env", False),
        ("--deny-run --allow-read", False),
        ("all", True),
        ("-A", True),
        ("--allow-run=ls", True),
        ("--allow-ffi", True),
        ("default --allow-run=ls", True),
        ("-P=strict", False),
        ("-P=shut", False),
        ("-P=broad", True),
        ("-P=programs", True),
    ],
)
def test_who_may_start_programs_is_known(text: str, may: bool) -> None:
    sets = {} if text.startswith("default") or not text else SET
    assert granted(text, sets).may_start_programs is may


@pytest.mark.parametrize(
    ("text", "base", "set_name", "denies"),
    [
        ("", "default", "default", ["net"]),
        ("default --allow-run", "default --allow-run", "default", ["net"]),
        ("none", "", None, []),
        ("all", "all", None, []),
        ("--allow-env --deny-read=/x", "--allow-env --deny-read=/x", None, ["read"]),
        ("-P=hidden", "-P=hidden", "hidden", ["read"]),
    ],
)
def test_hints_name_what_is_there_to_add_to(
    text: str, base: str, set_name: str | None, denies: list[str]
) -> None:
    assert granted(text, SET).hints == {
        "base": base,
        "set": set_name,
        "denies": denies,
        "runtimeApi": HOSTS,
        "everything": text == "all",
        "hidden": text != "all",
        "taskRoot": "/task",
    }


def test_a_setting_remembers_its_words() -> None:
    parsed = Permissions.parse(" -P=strict --allow-env=A --cached-only ")
    assert parsed == Permissions(
        text="-P=strict --allow-env=A --cached-only",
        mode=Mode.SET,
        set_name="strict",
        flags=(("allow-env", "A"),),
        is_cached_only=True,
        may_renice=False,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", set()),
        (
            "none",
            {
                "--cached-only", "--allow-read=\0.socket", "--allow-write=\0.socket",
                "--allow-net=unix:\0.socket",
            },
        ),
        (
            "--allow-net=example.com --allow-read",
            {
                "--allow-read", "--allow-write=\0.socket",
                "--allow-net=example.com,unix:\0.socket",
            },
        ),
        ("default", {"--allow-net", "--allow-write=\0,\0.socket"}),
    ],
)  # fmt: skip
def test_a_process_that_listens_may_do_that_and_no_more(
    text: str, expected: set[str]
) -> None:
    found = grant(
        Permissions.parse(text),
        {},
        read_paths=("/task",),
        task_root="/task",
        denied=HOSTS,
        listens=True,
    )
    assert expected <= set(found.flags)
    if text == "all":
        assert not any("socket" in flag for flag in found.flags)
    if text == "none":
        assert set(apart_from_hiding(found.flags)) == expected


@pytest.mark.parametrize(
    ("text", "is_allowed"), [("none", True), ("default", True), ("all", False)]
)
def test_a_process_with_a_pipe_of_its_own_may_read_that(
    text: str, is_allowed: bool
) -> None:
    found = grant(
        Permissions.parse(text),
        {},
        read_paths=("/task",),
        task_root="/task",
        denied=HOSTS,
        has_input=True,
    )
    # With everything allowed, it needs no permission of its own.
    assert any("\0.input" in flag for flag in found.flags) == is_allowed


HIDING = [
    ("", "/task,/opt,\0,/node_modules", "/mnt"),
    ("none", None, "/task,/mnt"),
    ("--allow-env", None, "/task,/mnt"),
    ("--allow-read=/data", "/data", "/task,/mnt"),
    ("--allow-read=$LAMBDA_TASK_ROOT/data", "/task/data", "/task,/mnt"),
    ("-R=.", ".,/node_modules", "/mnt"),
    ("-R=/", "/,/node_modules", None),
    ("default --allow-read=/mnt", "/task,/opt,\0,/mnt,/node_modules", None),
    ("default --allow-read=/mnt/a", "/task,/opt,\0,/mnt/a,/node_modules", "/mnt"),
    ("default --deny-read=/x", "/task,/opt,\0,/node_modules", "/x,/mnt"),
    ("default --ignore-read=/mnt", "/task,/opt,\0,/node_modules", None),
    ("-P=places", "/task,x,/node_modules", "/mnt"),
    ("-P=hidden", None, "/x,/task,/mnt"),
]


@pytest.mark.parametrize(
    ("text", "allowed", "denied"),
    [pytest.param(*case, id=repr(case[0])) for case in HIDING],
)
def test_what_may_not_be_read_is_hidden_but_for_the_function_s_own(
    text: str, allowed: str | None, denied: str | None
) -> None:
    """Nothing becomes readable but the folders that are searched for packages."""
    flags = hiding(text)
    assert flags.get("--ignore-read") == ""
    assert flags.get("--allow-read") == allowed
    assert flags.get("--deny-read") == denied


@pytest.mark.parametrize(
    "text",
    [
        "all", "-A", "-R", "default --allow-read", "-P=broad", "--deny-read",
        "-R=/x --deny-read", "--ignore-read", "-P=reads",
    ],
)  # fmt: skip
def test_nothing_is_hidden_where_all_or_nothing_is_readable_by_choice(
    text: str,
) -> None:
    """An ignored kind would hide even what is allowed without limit."""
    asked = dict(Permissions.parse(text).flags)
    flags = hiding(text)
    assert ("--ignore-read" in flags) is ("ignore-read" in asked)
    assert ("--deny-read" in flags) is ("deny-read" in asked)
    assert "/node_modules" not in flags.get("--allow-read", "")


def hiding(text: str) -> dict[str, str]:
    found = grant(
        Permissions.parse(text),
        {**SET, "reads": {"read": True}} if "-P" in text else {},
        read_paths=("/task", "/opt"),
        task_root="/task",
        denied=HOSTS,
        searched=("/node_modules",),
    )
    return {flag.partition("=")[0]: flag.partition("=")[2] for flag in found.flags}


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("", False),
        ("default", False),
        ("none", False),
        ("--allow-env", False),
        ("--allow-write=$TMPDIR,$TMPDIR/a", False),
        ("--allow-write=$TMPDIR/a/../b/,$TMPDIR//", False),
        ("--allow-write=$TMPDIR/..", True),
        ("--allow-write=$TMPDIR,$TMPDIR/a/../../b", True),
        ("default --allow-write=$TMPDIR/../x", True),
        ("--allow-write=$TMPDIR-of-another", True),
        ("--allow-write=a", True),
        ("default --allow-write=/tmp", True),
        ("--allow-write", True),
        ("--allow-run=ls", True),
        ("--allow-ffi", True),
        ("all", True),
    ],
)
def test_who_may_write_outside_the_private_folder_is_known(
    text: str, may: bool
) -> None:
    assert granted(text, {}).may_write_elsewhere is may


def test_the_socket_of_a_process_is_not_a_place_where_handlers_may_write() -> None:
    """The process gives up the permission before it loads the handler."""
    for text in ("default", "--allow-env", "none"):
        found = grant(
            Permissions.parse(text),
            {},
            read_paths=(),
            task_root="/task",
            denied=(),
            listens=True,
        )
        assert not found.may_write_elsewhere
