"""Which function an argument of a command means: a local project, or a name in AWS.

Knows the forms that every command accepts (a folder or file, a name, an ARN), and gives
the same text the same meaning in each command. Does not know which functions exist in
AWS: ``dev.aws.target`` asks. Specification: docs/deploy.md, "Which function is
meant"; Lambda API reference, Invoke, "FunctionName".
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.project.function import (
    Function,
    find_function,
    function_name,
)
from lambda_deno_spawn.dev.project.project import (
    FUNCTION_NAME,
    PROJECT_FILE,
    load_project,
)
from lambda_deno_spawn.dev.project.stages import Stages
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from lambda_deno_spawn.dev.project.project import Project

# A name or an ARN, with or without a version or alias. Lambda also accepts an ARN that
# begins with the account.
LAMBDA_NAME = re.compile(
    r"(?:(?:arn:(?P<partition>aws[a-z-]*):lambda:(?P<region>[a-z0-9-]+):)?"
    r"(?P<account>\d{12}):function:)?"
    r"(?P<name>[A-Za-z0-9_-]{1,64})"
    r"(?::(?P<qualifier>\$LATEST(?:\.PUBLISHED)?|[A-Za-z0-9_-]+))?"
)


@dataclass(frozen=True, slots=True)
class Target:
    """The function that an argument means.

    Attributes:
        argument: The text of the argument.
        name: The function's name in Lambda, without a qualifier.
        path: The local folder or file with the function; None for a name or an ARN.
        qualifier: Version or alias.
        region: Region in the ARN.
        account: Account in the ARN.
        partition: Partition in the ARN.
        other: Name of another function that the argument could mean, if AWS has one:
            the argument itself, where the folder of this name contains a function with
            a different name.
        stage: The stage of the project that is meant.
    """

    argument: str
    name: str
    path: Path | None = None
    qualifier: str | None = None
    region: str | None = None
    account: str | None = None
    partition: str | None = None
    other: str | None = None
    stage: str | None = None

    @property
    def lambda_name(self) -> str:
        """The name or ARN to pass to Lambda's API, with the qualifier if any."""
        if self.path is None:
            return self.argument
        return self.name if self.qualifier is None else f"{self.name}:{self.qualifier}"

    def choose_region(self, given: str | None) -> str | None:
        """Return the region to use; None: the default of the profile.

        Args:
            given: Value of ``--region``.

        Raises:
            UsageError: The ARN names another region.
        """
        if self.region is not None and given not in (None, self.region):
            raise UsageError(
                f"Cannot use --region {given} with {self.argument!r}: that function is "
                f"in {self.region}; leave out --region"
            )
        return self.region or given

    def refuse_qualifier(self, command: str) -> None:
        """Reject a version or alias, for a command that acts on the whole function.

        Raises:
            UsageError: The argument names a version or an alias.
        """
        if self.qualifier is not None:
            action = "read the log of" if command == "logs" else command
            raise UsageError(
                f"Cannot {action} {self.argument!r}: {self.qualifier!r} is a version "
                f"or alias, and this command acts on the whole function; leave out "
                f"':{self.qualifier}'"
            )


def find_target(
    argument: str, handler: str | None = None, stage: str | None = None
) -> Target:
    """Return the function that an argument means.

    A local folder or file with a function comes first, then names and ARNs.

    Args:
        argument: A path, a name or an ARN.
        handler: ``file.export``; None: choose it by the names of the files.
        stage: Stage of the project; None: without one.

    Raises:
        UsageError: The argument means no function, or two local ones, or one without
            such a stage.
    """
    if not argument:
        # Path("") is the working folder, which `delete "$NAME"` does not mean.
        raise UsageError(
            "Cannot use '' as a function: it is empty, perhaps a variable of the shell "
            "that is not set; give the folder that contains the function, its name in "
            "Lambda, or its ARN"
        )
    path = Path(argument)
    is_name = FUNCTION_NAME.fullmatch(argument) is not None
    if is_name and _holds_function(path, handler):
        return _named_folder(path, handler, stage)
    if LAMBDA_NAME.fullmatch(argument):
        target = named_target(argument)
        if stage is not None:
            return _staged(target, handler, stage)
        if target.account is None and target.qualifier is not None:
            # `orders:live` is an alias of the function that `orders` means.
            folder = Path(target.name)
            if _holds_function(folder, handler):
                found = _named_folder(folder, handler, None)
                return dataclasses.replace(
                    found, argument=argument, qualifier=target.qualifier
                )
        return target
    if argument.startswith("arn:"):
        raise UsageError(
            f"Cannot use {argument!r}: it is not the ARN of a function, such as "
            "arn:aws:lambda:eu-central-1:123456789012:function:name"
        )
    if not path.exists():
        raise UsageError(
            f"Cannot find function {argument!r}: there is no such file or folder; give "
            "the folder that contains the function, its name in Lambda, or its ARN"
        )
    name = load_project(path, handler, stage=stage).name
    return Target(argument, name, path, stage=stage)


def _staged(target: Target, handler: str | None, stage: str) -> Target:
    """Return a stage of the project here that has a name."""
    folders = _projects_called(target.name)
    if target.account is not None or target.qualifier is not None or not folders:
        reason = "no project here has this name"
        if target.account is not None:
            reason = "it is an ARN, which names one function already"
        elif target.qualifier is not None:
            reason = "a version or alias belongs to one function already"
        raise UsageError(
            f"Cannot use --stage {stage} with {target.argument!r}: {reason}; give the "
            "folder with the project's lambda.toml, or the whole name of the stage's "
            "function without --stage"
        )
    path = _only(folders, target)
    name = load_project(path, handler, stage=stage).name
    return Target(target.argument, name, path, stage=stage)


def named_target(name: str) -> Target:
    """Return the function with a name or ARN, without looking at local folders.

    Raises:
        UsageError: Lambda does not accept such a name.
    """
    match = LAMBDA_NAME.fullmatch(name)
    if match is None:
        raise UsageError(
            f"Cannot use the name {name!r}: Lambda accepts 1 to 64 letters, digits, - "
            "and _, or a function's ARN"
        )
    return Target(
        argument=name,
        name=match["name"],
        qualifier=match["qualifier"],
        region=match["region"],
        account=match["account"],
        partition=match["partition"],
    )


def find_project(
    target: Target, handler: str | None = None, name: str | None = None
) -> Project:
    """Return the project of a function: in its folder, or the local one with its name.

    Args:
        target: The function.
        handler: ``file.export``; overrides the project file.
        name: Name of the function; overrides the project file.

    Raises:
        UsageError: There is no such project, or there are several.
    """
    if target.path is not None:
        return load_project(target.path, handler, name, target.stage)
    if target.account is not None and name not in (None, target.name):
        raise UsageError(
            f"Cannot use --name {name} with {target.argument!r}: the ARN names the "
            "function already; leave out one of them"
        )
    folders = _projects_called(target.name)
    if not folders and Path(target.argument).is_dir():
        # Its name may be that of a function, but here the code is needed.
        return load_project(Path(target.argument), handler, name)
    if not folders:
        staged = _stage_called(target.name)
        advice = "give the handler's file or the folder that contains it"
        if staged is not None:
            folder, stage = staged
            advice = f"it is a stage: give {_shown(folder)} and --stage {stage}"
        raise UsageError(
            f"Cannot find function {target.argument!r}: there is no such file or "
            f"folder, and no project here has the name {target.name!r}; {advice}"
        )
    return load_project(_only(folders, target), handler, name)


def _only(folders: list[Path], target: Target) -> Path:
    """Return the only folder whose project has a name."""
    if len(folders) > 1:
        raise UsageError(
            f"Cannot tell which project {target.argument!r} means: "
            f"{' and '.join(_shown(folder) for folder in folders)} have this name; "
            "give one of them"
        )
    return folders[0]


def _named_folder(path: Path, handler: str | None, stage: str | None) -> Target:
    """Return the function in a folder that an argument names without a slash."""
    argument = str(path)
    base = load_project(path, handler).name
    others = [] if base == argument else _others_called(argument, path)
    if others:
        raise UsageError(
            f"Cannot tell which function {argument!r} means: the folder {argument!r} "
            f"contains {base!r}, and {_shown(others[0])} is the project called "
            f"{argument!r}; give {_shown(path)} for the first, {_shown(others[0])} for "
            "the second"
        )
    if stage is not None:
        # Only a project has stages: the argument cannot be the name of a function.
        name = load_project(path, handler, stage=stage).name
        return Target(argument, name, path, stage=stage)
    return Target(argument, base, path, other=None if base == argument else argument)


def _others_called(name: str, path: Path) -> list[Path]:
    return [
        folder
        for folder in _projects_called(name)
        if folder.resolve() != path.resolve()
    ]


def _shown(folder: Path) -> str:
    """Return a folder's path in a form that cannot be mistaken for a name."""
    return repr("." if folder == Path() else f"./{folder}")


def _holds_function(path: Path, handler: str | None = None) -> bool:
    """Return whether there is a project at a path, even one with an invalid file.

    There is none in a folder that this user may not enter, such as another program's
    data.
    """
    try:
        if (path / PROJECT_FILE).is_file():
            return True
        if not path.exists():
            return False
        find_function(path, handler)
    except (UsageError, OSError):
        return False
    return True


def _projects_called(name: str) -> list[Path]:
    """Return the working folder and its subfolders whose project has a name.

    A folder that several links lead to is one project.
    """
    found: dict[Path, Path] = {}
    for folder in _folders_here():
        if _is_called(folder, name):
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _folders_here() -> list[Path]:
    here = Path()
    return [here, *sorted(entry for entry in here.iterdir() if entry.is_dir())]


def _stage_called(name: str) -> tuple[Path, str] | None:
    """Return the project here, and its stage, whose function has a name."""
    for folder in _folders_here():
        content = _content_of(folder / PROJECT_FILE)
        if content is None:
            continue
        own = content.get("name")
        by_folder = function_name(Function(folder.resolve(), ""))
        base = own if isinstance(own, str) else by_folder
        with contextlib.suppress(UsageError):
            stages = Stages.of(str(folder), content)
            for stage in stages.overlays:
                if stages.function_name(stage, base) == name:
                    return folder, stage
    return None


def _is_called(folder: Path, name: str) -> bool:
    by_folder = function_name(Function(folder.resolve(), "")) == name
    file = folder / PROJECT_FILE
    try:
        has_file = file.is_file()
    except OSError:  # a folder that this user may not enter
        return False
    if not has_file:
        return by_folder and _holds_function(folder)
    content = _content_of(file)
    if content is None:
        return False  # load_project reports the error if this project is meant
    in_file = content.get("name")
    return by_folder if in_file is None else in_file == name


def _content_of(file: Path) -> dict[str, object] | None:
    """Return the content of a project file; None if it cannot be read."""
    try:
        return tomllib.loads(file.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None
