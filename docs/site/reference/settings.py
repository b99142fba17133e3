"""The table of settings: names, choices and defaults from config.py.

Knows what the code cannot say: the order, the form of a value that is not a word, a
default that depends on something, and the page with more.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from docs.site.reference.markdown import attributes, code, complete, phrase, table

from lambda_deno_spawn.config import KNOWN_VARIABLES, Settings

# The least that a function has.
ENVIRON = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001", "_HANDLER": "function.handler"}
OTHERS = ("DENO_DIR",)  # Deno's own variable, which the runtime reads too


class Row(NamedTuple):
    """A setting.

    Attributes:
        field: Attribute of ``Settings`` that holds it.
        values: What is accepted; empty: the members of its enumeration.
        default: Empty: that of the code.
        more: Link to more.
    """

    field: str
    values: str = ""
    default: str = ""
    more: str = ""


ROWS = {
    "LAMBDA_DENO_STRATEGY": Row("strategy", more="[choosing](choosing.md)"),
    "LAMBDA_DENO_START": Row("start", more="[forks](fork.md)"),
    "LAMBDA_DENO_WARM": Row(
        "warm",
        default="`ready` where AWS freezes the environment (as "
        "`AWS_LAMBDA_INITIALIZATION_TYPE` says), else `background`",
    ),
    "LAMBDA_DENO_WARM_MAX_AGE_S": Row("warm_max_age_s", "seconds", "no limit"),
    "LAMBDA_DENO_MAX_INVOCATIONS": Row(
        "max_invocations",
        "a whole number, one or more",
        "`fresh`: 1 · `server`: no limit",
    ),
    "LAMBDA_DENO_PERMISSIONS": Row(
        "permissions",
        "`none` · `all` · `default`, alone or with more flags: `default "
        "--allow-run=git` · Deno's flags: `--allow-net=api.example.com --allow-env` · "
        "a permission set: `-P=name`",
        "`default`",
        "[below](#permissions)",
    ),
    "LAMBDA_DENO_ENV": Row(
        "env_names",
        "names, separated by spaces or commas; `NAME*`, `*`, `@credentials`",
        "all but the runtime's own",
        "[below](#variables)",
    ),
    "LAMBDA_DENO_SECRETS": Row(
        "secrets",
        "`NAME=ssm:PARAMETER`, `NAME=secretsmanager:SECRET`, with `#KEY` for a member "
        "of a JSON object; separated by spaces",
        "none",
        "[secrets](secrets.md)",
    ),
    "LAMBDA_DENO_RESPONSE_MODE": Row(
        "response_mode", more="[streaming](guides/streaming.md)"
    ),
    "LAMBDA_DENO_STOP_MARGIN_MS": Row("stop_margin_s", "milliseconds"),
    "LAMBDA_DENO_LAST_WORDS_MS": Row(
        "last_words_s", "milliseconds", more="[last words](last-words.md)"
    ),
    "LAMBDA_DENO_SIGTERM": Row("sigterm", more="[below](#the-end)"),
    "LAMBDA_DENO_CLOSE_GRACE_MS": Row(
        "close_grace_s", "milliseconds", more="[below](#the-end)"
    ),
    "LAMBDA_DENO_METRICS": Row("metrics", more="[metrics](metrics.md)"),
    "LAMBDA_DENO_RECORD": Row("record", more="[replay](replay.md)"),
    "LAMBDA_DENO_V8_FLAGS": Row(
        "v8_flags",
        "`--max-old-space-size=256`",
        "a heap limit and room for new objects that follow from the memory size",
    ),
    "LAMBDA_DENO_BIN": Row(
        "deno_bin",
        "path",
        "`/opt/bin/deno`, the PyPI package `deno`, `PATH`, in this order",
    ),
    "DENO_DIR": Row(
        "deno_dir",
        "path",
        "`.deno_dir` of the function, if there is one",
        "[decision 0027](decisions/0027-a-cache-for-each-process.md)",
    ),
}


def settings_table() -> str:
    """Return the table of docs/configuration.md.

    Raises:
        ReferenceGapError: A setting or one of its choices is not described.
    """
    described = attributes(Settings)
    meanings = {name: described.get(row.field, "") for name, row in ROWS.items()}
    complete("setting", sorted({*KNOWN_VARIABLES, *OTHERS}), meanings)
    settings = Settings.from_environ(ENVIRON, "/var/task")
    return table(
        ["Variable", "Meaning", "Values", "Default"],
        (
            [
                code(name),
                f"{meanings[name]} {f'More: {row.more}.' if row.more else ''}",
                row.values or choices(type(getattr(settings, row.field))),
                row.default or default(name, getattr(settings, row.field)),
            ]
            for name, row in ROWS.items()
        ),
    )


def choices(kind: type[Enum]) -> str:
    """Return the values of an enumeration, each with what it means."""
    meanings = attributes(kind)
    complete(f"value of {kind.__name__}", kind.__members__, meanings)
    return " · ".join(
        f"{code(member.value)}: {phrase(meanings[name])}"
        for name, member in kind.__members__.items()
    )


def default(name: str, value: object) -> str:
    """Return a default as it would be written into the variable."""
    if isinstance(value, Enum):
        return code(value.value)
    assert isinstance(value, float), f"write down the default of {name}"
    return code(f"{value * 1000:.0f}" if name.endswith("_MS") else f"{value:g}")
