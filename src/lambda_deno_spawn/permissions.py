"""Permissions of a process: a setting and a set in ``deno.json`` become Deno's flags.

Knows the words of ``LAMBDA_DENO_PERMISSIONS``, the form of a permission set, how the
two are added up, and what is denied in any case. Does not know files or the
environment: text, sets and folders are arguments. Specification: docs/configuration.md,
"Permissions"; Deno's manual, "Security and permissions"; decision 0015.
"""

from __future__ import annotations

import posixpath

from lambda_deno_spawn.early import StrEnum
from lambda_deno_spawn.errors import ConfigError
from lambda_deno_spawn.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

VARIABLE = "LAMBDA_DENO_PERMISSIONS"
KINDS = ("read", "write", "net", "env", "sys", "run", "ffi", "import")
IGNORABLE = ("read", "env")
FLAG_NAMES = (
    "allow-all",
    *(f"allow-{kind}" for kind in KINDS),
    *(f"deny-{kind}" for kind in KINDS),
    *(f"ignore-{kind}" for kind in IGNORABLE),
)
SHORT_NAMES = {
    "A": "allow-all", "R": "allow-read", "W": "allow-write", "N": "allow-net",
    "E": "allow-env", "S": "allow-sys", "I": "allow-import",
}  # fmt: skip
# Placeholders for folders in the value of a flag and in a permission set.
PRIVATE_DIR = "$TMPDIR"
TASK_ROOT = "$LAMBDA_TASK_ROOT"
# Placeholder for the private folder until a process has one; no path can contain it.
PRIVATE_DIR_MARK = "\0"
# Suffix of the private folder's path: the socket of a process that listens is beside
# that folder, as handlers may empty it.
SOCKET = ".socket"
# The same for the pipe through which a process that serves more than one invocation is
# told what follows: its stdin has ended by then, as handlers may read it.
INPUT = ".input"
# Lambda mounts a function's file systems below this folder; AWS "Configuring file
# system access".
MOUNTS = "/mnt"
# With this call one process could slow down the supervisor and every later process.
RENICE = "setPriority"
# Deno itself reads these while it runs, past every permission: they decide where it
# connects and which certificates it trusts when it loads a module, and where it writes
# files. They keep the values of its start, whatever a handler sets (decision 0028).
# From Deno's source, 2.9: ext/fetch/proxy.rs, cli/lib/args.rs, ext/tls/keylog.rs,
# libs/npmrc, ext/kv, ext/cron, ext/http, ext/webgpu, runtime/web_worker.rs; the last
# line is glibc's resolver, resolver(3).
STEERING = (
    "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy",
    "NO_PROXY", "no_proxy",
    "DENO_CERT", "DENO_TLS_CA_STORE", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE",
    "SSL_CERT_DIR", "SSLKEYLOGFILE",
    "NPM_CONFIG_REGISTRY", "npm_config_registry", "JSR_URL", "JSR_NPM_URL",
    "DENO_AUTH_TOKENS",
    "DENO_CACHE_LSC_ENDPOINT", "DENO_CACHE_DB_MODE", "DENO_EMIT_CACHE_MODE",
    "DENO_KV_DEFAULT_PATH", "DENO_KV_PATH_PREFIX", "DENO_KV_DB_MODE",
    "DENO_SERVE_ADDRESS", "DENO_UNSTABLE_CRON_SOCK", "DENO_UNSTABLE_CONTROL_SOCK",
    "DENO_PERMISSION_BROKER_PATH", "DENO_AUDIT_PERMISSIONS", "DENO_COVERAGE_DIR",
    "DENO_WEBGPU_TRACE",
    "HOSTALIASES", "LOCALDOMAIN", "RES_OPTIONS",
)  # fmt: skip
EXPECTED = (
    "none, all, default, or Deno's permission flags such as --allow-net=example.com"
)
_SHORT_FLAGS = r"-([ARWNESI]+)"
_PLACEHOLDER = r"\$\w+"

# Flag names without their dashes, with values joined by commas; None: without limit.
Flags = dict[str, str | None]


class Mode(StrEnum):
    """The permissions to which a setting adds its flags."""

    DEFAULT = "default"
    NONE = "none"
    FLAGS = "flags"
    SET = "set"


class Permissions(NamedTuple):
    """``LAMBDA_DENO_PERMISSIONS``, parsed.

    Attributes:
        text: The setting as it was written; empty: not set.
        mode: The permissions to which the flags are added.
        set_name: Name after ``-P``; empty: the set called ``default``.
        flags: Permissions allowed and denied in addition.
        is_cached_only: No module is loaded from the network.
        may_renice: ``setPriority`` is allowed by name.
    """

    text: str = ""
    mode: Mode = Mode.DEFAULT
    set_name: str = ""
    flags: tuple[tuple[str, str | None], ...] = ()
    is_cached_only: bool = False
    may_renice: bool = False

    @classmethod
    def parse(cls, text: str) -> Permissions:
        """Read the setting.

        Raises:
            ConfigError: A word or flag is unknown, flags contradict each other, or a
                value holds an unknown placeholder.
        """
        text = text.strip()
        if not text:
            return cls()
        if text == "none":
            return cls(text, Mode.NONE, is_cached_only=True)
        if text == "all":
            return cls(text, Mode.FLAGS, flags=(("allow-all", None),))
        import shlex  # 1 ms that most cold starts need not pay

        try:
            words = shlex.split(text)
        except ValueError:  # a quotation that does not end
            raise ConfigError(VARIABLE, text, EXPECTED) from None
        mode = Mode.FLAGS
        if words[0] == "default":
            mode = Mode.DEFAULT
            words = words[1:]
        set_name = ""
        is_cached_only = may_renice = False
        flags: Flags = {}
        for word in words:
            name, equals, value = word.partition("=")
            if name in ("-P", "--permission-set"):
                if mode is not Mode.FLAGS:
                    expected = "one of default and -P, and -P only once"
                    raise ConfigError(VARIABLE, text, expected)
                mode, set_name = Mode.SET, value
            elif word == "--cached-only":
                is_cached_only = True
            else:
                for flag in _flag_names(name, text):
                    _add(flags, flag, _value(flag, value, text) if equals else None)
                    may_renice |= flag == "allow-sys" and RENICE in value.split(",")
        is_more = any(flag != "allow-all" and "allow-" in flag for flag in flags)
        if "allow-all" in flags and (is_more or mode is not Mode.FLAGS):
            expected = "beside --allow-all no other --allow flag, no default and no -P"
            raise ConfigError(VARIABLE, text, expected)
        return cls(
            text, mode, set_name, tuple(flags.items()), is_cached_only, may_renice
        )


def _flag_names(word: str, text: str) -> list[str]:
    import re  # 2 ms that most cold starts need not pay

    short = re.fullmatch(_SHORT_FLAGS, word)
    if short is not None:
        return [SHORT_NAMES[letter] for letter in short[1]]
    name = word.removeprefix("--")
    if name not in FLAG_NAMES or not word.startswith("--"):
        raise ConfigError(VARIABLE, text, EXPECTED)
    return [name]


def _value(flag: str, value: str, text: str) -> str:
    if flag == "allow-all":
        raise ConfigError(VARIABLE, text, "no value after --allow-all")
    if not value:
        raise ConfigError(VARIABLE, text, f"a value after --{flag}=, or no =")
    import re

    for placeholder in re.findall(_PLACEHOLDER, value):
        if placeholder not in (PRIVATE_DIR, TASK_ROOT):
            expected = f"no other placeholder than {PRIVATE_DIR} and {TASK_ROOT}"
            raise ConfigError(VARIABLE, text, expected)
    return value


def _add(flags: Flags, name: str, value: str | None) -> None:
    """Add a value to a flag; a flag without limit stays without limit."""
    there = flags.get(name, "")
    if there is None or value is None:
        flags[name] = None
    else:
        flags[name] = f"{there},{value}" if there else value


class Grant(NamedTuple):
    """The permissions of every process of an environment.

    Attributes:
        flags: Arguments for Deno; ``PRIVATE_DIR_MARK`` stands for the private folder.
        may_start_programs: Other programs may get to share the process's stdout.
        may_write_elsewhere: Files outside the private folder may be written to.
        set_name: Permission set of ``deno.json`` that applies, None if none does.
        hints: Facts for the error about a denied access; see docs/protocol.md.
        steering: Variables of ``STEERING`` that the handler's code may read and set;
            Deno keeps its own values.
    """

    flags: tuple[str, ...]
    may_start_programs: bool
    may_write_elsewhere: bool
    set_name: str | None
    hints: Mapping[str, object]
    steering: tuple[str, ...] = ()


def grant(
    permissions: Permissions,
    sets: Mapping[str, Any],
    *,
    read_paths: Sequence[str],
    task_root: str,
    denied: Sequence[str],
    searched: Sequence[str] = (),
    listens: bool = False,
    has_input: bool = False,
) -> Grant:
    """Add up the setting, a permission set and the runtime's own denials.

    Args:
        permissions: The setting.
        sets: Permission sets of the function's ``deno.json``, by name.
        read_paths: Readable by default, besides the private folder.
        task_root: Replaces its placeholder.
        searched: Folders in which ``require`` also looks for packages; readable if the
            task root is.
        denied: Hosts with ports that no process may connect to.
        listens: The process listens on a socket beside its private folder.
        has_input: The process reads from a pipe beside its private folder.

    Raises:
        ConfigError: The set does not exist, or a flag would have no effect.
    """
    if permissions.mode is Mode.NONE:
        own: Flags = {}
        is_hidden = _hide(own, task_root, searched)
        hints = _hints(permissions, None, {}, denied, task_root, is_hidden=is_hidden)
        if listens:
            _allow_socket(own)
        if has_input:
            _allow_input(own)
        arguments = [_argument(name, value) for name, value in own.items()]
        return Grant(("--cached-only", *arguments), False, False, None, hints)
    set_name = _set_name(permissions, sets)
    if set_name is not None:
        base = _flags_of_set(set_name, sets[set_name])
    elif permissions.mode is Mode.DEFAULT:
        folder = PRIVATE_DIR_MARK
        base = {
            "allow-net": None, "allow-env": None, "allow-sys": None,
            "allow-read": ",".join([*read_paths, folder]), "allow-write": folder,
        }  # fmt: skip
    else:
        base = {}
    total = dict(base)
    for name, value in permissions.flags:
        _check_effect(name, value, base, permissions)
        _add(total, name, value)
    asked = dict(total)
    is_wide = total.get("allow-sys", "") is None or "allow-all" in total
    if is_wide and not permissions.may_renice:
        _add(total, "deny-sys", RENICE)
    _deny(total, denied)
    steering = _keep_steering(total)
    total = {name: _expanded(value, task_root) for name, value in total.items()}
    is_hidden = _hide(total, task_root, searched)
    hints = _hints(permissions, set_name, asked, denied, task_root, is_hidden=is_hidden)
    own_only = _is_private(total.get("allow-write", ""))
    if listens:
        _allow_socket(total)
    if has_input:
        _allow_input(total)
    given = total
    arguments = []
    if set_name is not None:
        # Deno uses a flag in place of the set's entry, so it has to hold both.
        given = {n: v for n, v in total.items() if n not in base or v != base[n]}
        arguments.append("-P" if set_name == "default" else f"-P={set_name}")
    if permissions.is_cached_only:
        arguments.append("--cached-only")
    arguments += [_argument(name, value) for name, value in given.items()]
    programs = bool({"allow-all", "allow-run", "allow-ffi"} & set(total))
    elsewhere = programs or not own_only
    return Grant(tuple(arguments), programs, elsewhere, set_name, hints, steering)


def _set_name(permissions: Permissions, sets: Mapping[str, Any]) -> str | None:
    """Return the set that applies, None if none does."""
    name = permissions.set_name or "default"
    if permissions.mode is Mode.DEFAULT:
        return name if name in sets else None
    if permissions.mode is not Mode.SET:
        return None
    if name not in sets:
        found = ", ".join(sorted(sets)) or "none"
        expected = f"a permission set of the function's deno.json, which has: {found}"
        raise ConfigError(VARIABLE, permissions.text, expected)
    return name


def _flags_of_set(name: str, content: Any) -> Flags:
    """Return a permission set as flags, without entries that Deno will refuse."""
    flags: Flags = {}
    if not isinstance(content, dict):
        return flags
    if content.get("all") is True:
        flags["allow-all"] = None
    for kind in KINDS:
        entry = content.get(kind)
        verdicts = entry if isinstance(entry, dict) else {"allow": entry}
        for verdict in ("allow", "deny", "ignore"):
            match verdicts.get(verdict):
                case True:
                    flags[f"{verdict}-{kind}"] = None
                case list(values) if values:
                    for value in values:
                        if "," in str(value):
                            place = f"deno.json, permissions.{name}.{kind}"
                            raise ConfigError(place, str(value), "no comma in it")
                    flags[f"{verdict}-{kind}"] = ",".join(map(str, values))
    return flags


def _check_effect(
    name: str, value: str | None, base: Flags, permissions: Permissions
) -> None:
    """Refuse a flag that seems to narrow a permission that is allowed without limit."""
    is_allowed_anyway = base.get(name, "") is None or "allow-all" in base
    if not (name.startswith("allow-") and value and is_allowed_anyway):
        return
    if name == "allow-sys" and permissions.may_renice:
        return
    raise ConfigError(
        VARIABLE,
        permissions.text,
        f"no --{name}={value} here: the base that it is added to allows this without "
        "limit; to narrow it, list flags only, without default and -P",
    )


def _allow_socket(flags: Flags) -> None:
    """Let a process listen on its own socket, and nowhere else.

    Once it listens, and before it loads the handler, it gives up the permission to read
    and write there.
    """
    if "allow-all" in flags:
        return
    path = f"{PRIVATE_DIR_MARK}{SOCKET}"
    _add(flags, "allow-read", path)
    _add(flags, "allow-write", path)
    _add(flags, "allow-net", f"unix:{path}")


def _allow_input(flags: Flags) -> None:
    """Let a process open its own pipe; it gives up the permission as for a socket."""
    if "allow-all" not in flags:
        _add(flags, "allow-read", f"{PRIVATE_DIR_MARK}{INPUT}")


def _hide(flags: Flags, task_root: str, searched: Sequence[str]) -> bool:
    """Hide files that may not be read; return whether they are hidden.

    Programs look for files that need not exist, and are not prepared for any other
    answer than "not there". Where the function's own files are, a denied access stays
    an error that says so. Nothing becomes readable, except ``searched``. Decision 0035.
    """
    allowed = flags.get("allow-read", "")
    is_wide = "allow-all" in flags or allowed is None
    if is_wide or None in (flags.get("deny-read", ""), flags.get("ignore-read", "")):
        return False
    # Deno applies the most specific entry, and a denial before an equal one.
    if _covers(allowed, task_root, task_root):
        if searched:
            _add(flags, "allow-read", ",".join(searched))
        own = [MOUNTS]
    else:
        own = [task_root, MOUNTS]
    given = f"{allowed},{flags.get('ignore-read', '')}"
    told = [path for path in own if not _covers(given, path, task_root)]
    if told:
        _add(flags, "deny-read", ",".join(told))
    flags["ignore-read"] = None
    return True


def _covers(value: str | None, path: str, task_root: str) -> bool:
    """Return whether one of a flag's paths is this folder, or a folder above it."""
    for entry in filter(None, (value or "").split(",")):
        absolute = posixpath.normpath(posixpath.join(task_root, entry))
        if is_within(path, absolute):
            return True
    return False


def _is_private(value: str | None) -> bool:
    """Return whether a flag's paths lie in the private folder, however written."""
    return value is not None and all(
        is_within(posixpath.normpath(path), PRIVATE_DIR_MARK)
        for path in filter(None, value.split(","))
    )


def is_within(path: str, folder: str) -> bool:
    """Return whether a path is a folder, or lies in it; both absolute and normal."""
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def _deny(flags: Flags, denied: Iterable[str]) -> None:
    """Deny these hosts, whatever is allowed."""
    hosts = ",".join(denied)
    _add_first(flags, "deny-net", hosts)
    # Loading modules is a permission of its own. Unless it was widened it covers a few
    # public hosts, each of which would be looked up for a list of denied addresses.
    if "allow-all" in flags or "allow-import" in flags:
        _add_first(flags, "deny-import", hosts)


def _keep_steering(flags: Flags) -> tuple[str, ...]:
    """Keep Deno's own variables from being set; return those the code may still see.

    An ignored variable cannot be set and reads as if it did not exist, in Web Workers
    too; a denied one would be an error for code that only reads it. Where access to the
    environment is not allowed, no variable can be set.
    """
    is_wide = "allow-all" in flags or flags.get("allow-env", "") is None
    allowed = "*" if is_wide else flags.get("allow-env")
    kept = [name for name in STEERING if _is_listed(name, allowed)]
    withheld = [flags.get(f"{verdict}-env", "") for verdict in ("deny", "ignore")]
    seen = [
        name
        for name in kept
        if not any(value is None or _is_listed(name, value) for value in withheld)
    ]
    if kept:
        _add(flags, "ignore-env", ",".join(kept))
    return tuple(seen)


def _is_listed(name: str, value: str | None) -> bool:
    """Return whether a flag's list of variables has a name, or a pattern for it."""
    return any(
        name == entry or (entry.endswith("*") and name.startswith(entry[:-1]))
        for entry in (value or "").split(",")
    )


def _add_first(flags: Flags, name: str, value: str) -> None:
    there = flags.pop(name, "")
    flags[name] = None if there is None else f"{value},{there}" if there else value


def _expanded(value: str | None, task_root: str) -> str | None:
    if value is None or "$" not in value:
        return value
    return value.replace(PRIVATE_DIR, PRIVATE_DIR_MARK).replace(TASK_ROOT, task_root)


def _argument(name: str, value: str | None) -> str:
    return f"--{name}" if value is None else f"--{name}={value}"


def _hints(
    permissions: Permissions,
    set_name: str | None,
    total: Flags,
    denied: Sequence[str],
    task_root: str,
    *,
    is_hidden: bool,
) -> dict[str, object]:
    is_none = permissions.mode is Mode.NONE
    return {
        "base": "" if is_none else permissions.text or "default",
        "set": set_name,
        "denies": [kind for kind in KINDS if f"deny-{kind}" in total],
        "runtimeApi": list(denied),
        "everything": "allow-all" in total,
        "hidden": is_hidden,
        "taskRoot": task_root,
    }
