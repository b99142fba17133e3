"""The project file of a function, ``lambda.toml``: its name and its settings.

Knows every key, the values it accepts and the Lambda setting it stands for. Does not
know how a function is built, invoked or deployed. Specification: docs/project.md;
limits and names: AWS Lambda API reference, CreateFunction.
"""

from __future__ import annotations

import platform
import re
import tomllib
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lambda_deno_spawn.config import ResponseMode, Settings, Start, Strategy
from lambda_deno_spawn.dev.project.aws_keys import (
    MANAGED_MEMORY_MAX_MB,
    MANAGED_TIMEOUT_LIMIT_S,
    TOP_KEYS,
    conflict,
    read_aws_keys,
)
from lambda_deno_spawn.dev.project.function import (
    find_function,
    function_name,
    variable_problem,
)
from lambda_deno_spawn.dev.project.patterns import pattern_problem
from lambda_deno_spawn.dev.project.quotas import (
    LAYERS_LIMIT,
    MEMORY_MAX_MB,
    MEMORY_MIN_MB,
    OS_ONLY,
    STORAGE_MAX_MB,
    STORAGE_MIN_MB,
    TIMEOUT_LIMIT_S,
)
from lambda_deno_spawn.dev.project.secrets import (
    SECRETS_VARIABLE,
    reference_text,
    secrets_variable,
)
from lambda_deno_spawn.dev.project.stages import KEY as STAGE_KEY
from lambda_deno_spawn.dev.project.stages import Stages
from lambda_deno_spawn.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_deno_spawn.dev.project.function import Function

PROJECT_FILE = "lambda.toml"
DESCRIPTION_LIMIT = 256
FUNCTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
NAME_RULE = "1 to 64 letters, digits, - and _"
HANDLER = re.compile(r"(?!/)(?!(?:.*/)?\.\./)[^\s]*[^\s./]\.[\w$.]*[\w$]")
ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")
LAYER_ARN = re.compile(r"arn:aws[a-z-]*:lambda:[a-z0-9-]+:\d{12}:layer:[\w-]+:\d+")
# Patterns begin at the project's folder, so a leading slash is that folder.
RELATIVE = re.compile(r"(?!(?:.*/)?\.\.(?:/|$)).+")
RUNTIMES = ("python3.12", "python3.13", "python3.14", OS_ONLY)

E = TypeVar("E", bound=StrEnum)


class Arch(StrEnum):
    """Instruction set of a function, spelled as in Lambda's API."""

    X86_64 = "x86_64"
    ARM64 = "arm64"

    @classmethod
    def here(cls) -> Arch:
        """Return the instruction set of this machine."""
        is_arm = platform.machine().lower() in ("arm64", "aarch64")
        return cls.ARM64 if is_arm else cls.X86_64


@dataclass(frozen=True, slots=True)
class Project:
    """A function and the settings in its project file; None: not set there.

    Attributes:
        function: Its folder and handler.
        name: Name of the function in Lambda.
        arch: Instruction set; if the file does not set it, Lambda's own default.
        runtime: One of ``RUNTIMES``.
        memory_mb: Memory size.
        timeout_s: Function timeout, whole seconds.
        storage_mb: Size of ``/tmp``.
        strategy: Value of ``LAMBDA_DENO_STRATEGY``.
        start: Value of ``LAMBDA_DENO_START``.
        permissions: Value of ``LAMBDA_DENO_PERMISSIONS``.
        response_mode: Value of ``LAMBDA_DENO_RESPONSE_MODE``.
        description: Text for the AWS console.
        role: ARN of the execution role; None: ``deploy`` creates one.
        layers: ARNs of the layers to use instead of the runtime's own.
        bundle: Package one bundled module; False: package the files unchanged; None:
            bundle what can be bundled.
        include: Patterns of additional files to package.
        exclude: Patterns of files to leave out of the package.
        env: The function's environment variables.
        secrets: References to values that the runtime fetches from AWS, by variable.
        tags: AWS tags.
        aws: Values of the keys that concern AWS alone, by dotted name.
        stage: The stage whose settings these are; None: without a stage.
    """

    function: Function
    name: str
    arch: Arch = Arch.X86_64
    runtime: str = "python3.13"
    memory_mb: int | None = None
    timeout_s: int | None = None
    storage_mb: int | None = None
    strategy: Strategy | None = None
    start: Start | None = None
    permissions: str | None = None
    response_mode: ResponseMode | None = None
    description: str | None = None
    role: str | None = None
    layers: tuple[str, ...] = ()
    bundle: bool | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    aws: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    stage: str | None = None

    @property
    def variables(self) -> dict[str, str]:
        """Return the function's environment variables and the runtime's settings."""
        settings = {
            "LAMBDA_DENO_STRATEGY": self.strategy,
            "LAMBDA_DENO_START": self.start,
            "LAMBDA_DENO_PERMISSIONS": self.permissions,
            "LAMBDA_DENO_RESPONSE_MODE": self.response_mode,
        }
        given = {name: str(value) for name, value in settings.items() if value}
        return {**given, **secrets_variable(self.secrets), **self.env}

    def variables_with(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the variables with further ones, which come first.

        A given variable also takes the place of a secret of its name.
        """
        kept = {name: text for name, text in self.secrets.items() if name not in given}
        own = self.variables
        own.pop(SECRETS_VARIABLE, None)
        if SECRETS_VARIABLE in self.env:
            own[SECRETS_VARIABLE] = self.env[SECRETS_VARIABLE]
        return {**secrets_variable(kept), **own, **given}


def load_project(
    path: Path,
    handler: str | None = None,
    name: str | None = None,
    stage: str | None = None,
) -> Project:
    """Find a function and read the project file beside it, if there is one.

    Args:
        path: The handler's file, or the folder that holds it.
        handler: ``file.export``; overrides the project file.
        name: Name of the function; overrides the project file.
        stage: Stage in the project file; None: without one.

    Raises:
        UsageError: There is no such function or stage, or the file has an invalid
            value.
    """
    if name is not None and not FUNCTION_NAME.fullmatch(name):
        raise UsageError(f"Cannot use the name {name!r}; expected {NAME_RULE}")
    file = (path if path.is_dir() else path.parent) / PROJECT_FILE
    if not file.is_file():
        if stage is not None:
            raise UsageError(
                f"Cannot use --stage {stage}: there is no {str(file)!r} with a table "
                f"[{STAGE_KEY}.{stage}]; add it, or leave out --stage"
            )
        function = find_function(path, handler)
        return Project(function, name or function_name(function))
    try:
        content = tomllib.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"Cannot read {str(file)!r}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"Cannot read {str(file)!r}: {error}") from error
    stages = Stages.of(str(file), content)
    table = _Table(stages, stage)
    named = table.text("handler", HANDLER, "file.export, such as src/api.handler")
    # If the caller named a file, that file is the handler, not the project's.
    function = find_function(path, handler or (named if path.is_dir() else None))
    aws = read_aws_keys({key: table._take(key) for key in TOP_KEYS}, table._refuse)
    is_managed = "managed_instances.capacity_provider" in aws
    table.text("name", FUNCTION_NAME, NAME_RULE)
    base_name = str(stages.base.get("name") or function_name(function))
    if name is not None:
        stages.check_name(stage, name, base_name)
    project = Project(
        function=function,
        name=name or stages.function_name(stage, base_name),
        arch=table.choice("arch", Arch) or Arch.X86_64,
        runtime=table.one_of("runtime", RUNTIMES) or "python3.13",
        memory_mb=table.number(
            "memory",
            MEMORY_MIN_MB,
            MANAGED_MEMORY_MAX_MB if is_managed else MEMORY_MAX_MB,
            "MB",
        ),
        timeout_s=table.number(
            "timeout",
            1,
            MANAGED_TIMEOUT_LIMIT_S if is_managed else TIMEOUT_LIMIT_S,
            "seconds",
        ),
        storage_mb=table.number("storage", STORAGE_MIN_MB, STORAGE_MAX_MB, "MB"),
        strategy=table.choice("strategy", Strategy),
        start=table.choice("start", Start),
        permissions=table.text("permissions"),
        response_mode=table.choice("response_mode", ResponseMode),
        description=table.text(
            "description",
            re.compile(f".{{0,{DESCRIPTION_LIMIT}}}", re.DOTALL),
            f"at most {DESCRIPTION_LIMIT} characters",
        ),
        role=table.text("role", ROLE_ARN, "the ARN of a role"),
        layers=table.texts("layers", LAYER_ARN, "ARNs of layer versions", LAYERS_LIMIT),
        bundle=table.truth("bundle"),
        include=table.patterns("include"),
        exclude=table.patterns("exclude"),
        env=table.mapping("env", check_names=True),
        secrets=table.secrets("env"),
        tags=table.mapping("tags", check_names=False),
        aws=aws,
        stage=stage,
    )
    table.reject_unknown_keys()
    _check_settings(str(file), project)
    _check_combination(str(file), project)
    if project.secrets and aws.get("snapstart") is True:
        raise table._refuse(
            "snapstart",
            True,
            "false, as [env] refers to secrets, which a snapshot would keep",
        )
    return project


def _check_settings(file: str, project: Project) -> None:
    """Check the runtime's settings with the runtime's own parser before they ship."""
    try:
        settings = Settings.from_environ(
            {
                "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
                "_HANDLER": project.function.handler,
                **project.variables,
            },
            str(project.function.task_root),
        )
    except ConfigError as error:
        raise UsageError(f"Cannot use {file!r}: {error}") from error
    if settings.unknown:
        raise UsageError(
            f"Cannot use {file!r}: there is no setting {settings.unknown[0]}; "
            "docs/configuration.md lists all settings"
        )


def _check_combination(file: str, project: Project) -> None:
    """Reject settings that AWS does not accept together.

    An alias can also be an option of ``deploy``, which checks again.
    """
    problem = conflict(
        project.aws,
        runtime=project.runtime,
        memory_mb=project.memory_mb,
        storage_mb=project.storage_mb,
        alias=project.aws.get("alias", "of an option"),
        url=project.aws.get("url.enabled"),
        has_layers=bool(project.layers),
    )
    if problem is not None:
        raise UsageError(f"Cannot use {file!r}: {problem}")


class _Table:
    """A parsed project file: checks each value it returns, and finds unknown keys."""

    def __init__(self, stages: Stages, stage: str | None) -> None:
        self._file = stages.file
        self._stages = stages
        self._stage = stage
        self._content = stages.content(stage)
        self._known: set[str] = set()

    def _take(self, key: str) -> object:
        self._known.add(key)
        return self._content.get(key)

    def _refuse(self, key: str, value: object, expected: str) -> UsageError:
        key = self._stages.place_of(self._stage, key)
        return UsageError(
            f"Cannot use {self._file!r}: {key} is {value!r}; expected {expected}"
        )

    def text(
        self, key: str, pattern: re.Pattern[str] | None = None, expected: str = "text"
    ) -> str | None:
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, str) or (pattern and not pattern.fullmatch(value)):
            raise self._refuse(key, value, expected)
        return value

    def texts(
        self,
        key: str,
        pattern: re.Pattern[str],
        expected: str,
        limit: int | None = None,
    ) -> tuple[str, ...]:
        value = self._take(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(
            isinstance(item, str) and pattern.fullmatch(item) for item in value
        ):
            raise self._refuse(key, value, f"a list of {expected}")
        if limit is not None and len(value) > limit:
            raise self._refuse(key, value, f"at most {limit}")
        return tuple(value)

    def patterns(self, key: str) -> tuple[str, ...]:
        expected = "patterns below the project's folder"
        found = self.texts(key, RELATIVE, expected)
        for pattern in found:
            if problem := pattern_problem(pattern):
                raise self._refuse(key, list(found), f"a list of {expected}: {problem}")
        return found

    def truth(self, key: str) -> bool | None:
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, bool):
            raise self._refuse(key, value, "true or false")
        return value

    def number(self, key: str, least: int, most: int, unit: str) -> int | None:
        value = self._take(key)
        if value is None:
            return None
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if not is_number or not least <= value <= most:  # type: ignore[operator]
            expected = f"a whole number of {unit} from {least} to {most}"
            raise self._refuse(key, value, expected)
        return value  # type: ignore[return-value]

    def one_of(self, key: str, choices: tuple[str, ...]) -> str | None:
        value = self._take(key)
        if value is not None and value not in choices:
            raise self._refuse(key, value, f"one of {', '.join(choices)}")
        return value

    def choice(self, key: str, kind: type[E]) -> E | None:
        value = self.one_of(key, tuple(kind))
        return None if value is None else kind(value)

    def mapping(self, key: str, *, check_names: bool) -> dict[str, str]:
        table = self._take(key)
        if table is None:
            return {}
        if not isinstance(table, dict):
            raise self._refuse(key, table, f"a table: [{key}] and lines NAME = value")
        found = {}
        for name, value in table.items():
            if check_names and isinstance(value, dict):
                continue  # a secret
            if isinstance(value, bool):
                text = "true" if value else "false"
            elif isinstance(value, str | int | float):
                text = str(value)
            else:
                raise self._refuse(
                    f"{key}.{name}", value, "text, a number, true or false"
                )
            problem = variable_problem(name, text) if check_names else None
            if problem:
                place = self._stages.place_of(self._stage, f"{key}.{name}")
                raise UsageError(f"Cannot use {self._file!r}: {place}: {problem}")
            found[name] = text
        return found

    def secrets(self, key: str) -> dict[str, str]:
        """Return the references to secrets in a table of variables."""
        table = self._take(key)
        found = {}
        for name, value in table.items() if isinstance(table, dict) else ():
            if not isinstance(value, dict):
                continue
            place = self._stages.place_of(self._stage, f"{key}.{name}")
            try:
                found[name] = reference_text(name, value)
            except ValueError as error:
                raise UsageError(
                    f"Cannot use {self._file!r}: {place}: {error}"
                ) from None
        return found

    def reject_unknown_keys(self) -> None:
        """Reject unknown keys: most of them are typos."""
        self._stages.reject_unknown_keys(self._known)
