"""Patterns of files, with the meaning that they have in a ``.gitignore``.

Knows which pattern decides on a file, and which ones have matched nothing. Does not
know what is decided, and reads no file. Specification: gitignore(5).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pathspec import GitIgnoreSpec
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

HERE = "./"  # Git does not know it; people who write it mean the top of the project
# pathspec ends the expression of a folder with this group.
DIRECTORY_MARK = "(?P<ps_d>/)"
# Character classes of Git that pathspec does not know.
CLASSES = {
    "alnum": "A-Za-z0-9",
    "alpha": "A-Za-z",
    "digit": "0-9",
    "lower": "a-z",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
CLASS = re.compile(rf"\[:({'|'.join(CLASSES)}):\]")
# A negated set of characters in the expression that pathspec makes; "]" and "-" that
# come first are members.
NEGATED = re.compile(r"\[\^(\\?\]?-?)")
BRACES = re.compile(r"\{[^{}]*,[^{}]*\}")


class Patterns:
    """A list of patterns, the last matching one of which decides."""

    def __init__(self, lines: Iterable[str]) -> None:
        """Parse the patterns.

        Raises:
            UsageError: One is not a pattern.
        """
        self.lines = tuple(lines)
        self._matched: set[int] = set()
        self._spec = _spec(self.lines)
        self._of_folders: dict[tuple[str, bool], bool] = {}
        # The folders that a pattern names one by one, from the top of the project.
        self._folders = [_folders(line) for line in self.lines]

    def matches(
        self, name: str, *, is_folder: bool = False, only_hidden: bool = False
    ) -> bool:
        """Return whether the patterns match a file, or a folder that contains it.

        Args:
            name: Path below the project's folder, with slashes.
            is_folder: It is the path of a folder.
            only_hidden: Use patterns only whose last part begins with a dot.
        """
        if self._spec is None:
            return False
        # Files in a matched folder stay matched, whatever other patterns say.
        folder = name.rpartition("/")[0]
        return (
            folder != "" and self._matches_folder(folder, only_hidden=only_hidden)
        ) or self._decides(f"{name}/" if is_folder else name, only_hidden=only_hidden)

    def _matches_folder(self, folder: str, *, only_hidden: bool) -> bool:
        known = self._of_folders.get((folder, only_hidden))
        if known is None:
            known = self.matches(folder, is_folder=True, only_hidden=only_hidden)
            self._of_folders[folder, only_hidden] = known
        return known

    def _decides(self, name: str, *, only_hidden: bool) -> bool:
        is_matched = False
        for index, pattern in enumerate(self._spec.patterns if self._spec else ()):
            if only_hidden and not _is_about_hidden_files(self.lines[index]):
                continue
            if pattern.include is not None and _is_meant(pattern, name):
                self._matched.add(index)
                is_matched = pattern.include
        return is_matched

    def try_unmatched(self, path: str) -> None:
        """Look whether patterns that have matched nothing match a path.

        Args:
            path: A file, or a folder with a slash at the end.
        """
        for index, pattern in enumerate(self._spec.patterns if self._spec else ()):
            is_tried = index in self._matched or pattern.include is None
            if not is_tried and _is_meant(pattern, path):
                self._matched.add(index)

    def reach_into(self, folder: str) -> bool:
        """Return whether a pattern spells out a path that leads into a folder."""
        parts = folder.split("/")
        for index, folders in enumerate(self._folders):
            if not folders or self.lines[index].startswith("!"):
                continue
            named = zip(folders, parts, strict=False)
            if all(_names(pattern, part) for pattern, part in named) and (
                len(folders) >= len(parts) or folders[-1] == "**"
            ):
                return True
        return False

    def unmatched(self) -> list[str]:
        """Return the patterns that have matched nothing so far."""
        found = enumerate(self.lines)
        return [line for index, line in found if index not in self._matched]


def pattern_problem(line: str) -> str | None:
    """Return why a line cannot be used as a pattern; None: it can."""
    try:
        _spec((line,))
    except UsageError as error:
        return str(error)
    return None


def advice_on(pattern: str) -> str:
    """Return why a pattern may have matched nothing."""
    if BRACES.search(pattern):
        return "a pattern has no {a,b}: write one pattern for each"
    if pattern.startswith("#"):
        return "it is a comment: write \\# for a name that begins with #"
    return "patterns have the meaning that they have in a .gitignore"


def _spec(lines: tuple[str, ...]) -> GitIgnoreSpec | None:
    if not lines:
        return None
    # Only for projects with patterns: the import takes as long as a small command.
    from pathspec import GitIgnoreSpec
    from pathspec.patterns.gitignore import GitIgnorePatternError

    for line in lines:
        if "\n" in line or line.strip() in ("", "/", "!", "!/"):
            raise UsageError(f"{line!r} is not a pattern of a .gitignore")
    try:
        spec = GitIgnoreSpec.from_lines([_plain(line) for line in lines])
    except GitIgnorePatternError as error:
        raise UsageError(f"{error}") from error
    except re.error as error:
        listed = ", ".join(map(repr, lines))
        raise UsageError(
            f"{listed} has brackets that are not a set of characters ({error}): write "
            "\\[ for a name with a bracket"
        ) from error
    for pattern in spec.patterns:
        # The end of a folder's name belongs to no set.
        if pattern.regex is not None and "[^" in (regex := str(pattern.regex.pattern)):
            pattern.regex = re.compile(NEGATED.sub(r"[^\1/", regex))
    return spec


def _is_meant(pattern: GitIgnoreSpecPattern, name: str) -> bool:
    """Return whether a pattern matches a path itself, not only a folder above it."""
    found = pattern.match_file(name)
    if found is None or pattern.regex is None:
        return False
    regex = str(pattern.regex.pattern)
    if DIRECTORY_MARK in regex:
        # "*/" is only the mark, without a place.
        return (
            name.endswith("/")
            if regex == DIRECTORY_MARK
            else (found.match.end() == len(name))
        )
    # "a/**" is "^a/", which also matches the folder itself.
    return not regex.endswith("/") or len(name) > found.match.end()


def _plain(line: str) -> str:
    """Return an equal pattern that pathspec understands as Git does."""
    if ":]" in line:
        line = CLASS.sub(lambda found: CLASSES[found[1]], line)
    mark = "!" if line.startswith("!") else ""
    rest = line.removeprefix(mark)
    if rest.startswith(HERE):
        rest = f"/{rest.removeprefix(HERE)}"
    # All folders in a folder: pathspec takes it for the folder itself.
    return f"{mark}{rest}*/" if rest.endswith("/**/") else f"{mark}{rest}"


def _folders(line: str) -> list[str]:
    """Return the folders that lead to what a pattern matches; empty: it names none."""
    parts = _plain(line).strip("/").split("/")
    is_anchored = "/" in _plain(line).rstrip("/")
    return parts if is_anchored and parts[0] != "**" else []


def _names(pattern: str, part: str) -> bool:
    """Return whether a part of a pattern names a folder, hidden ones by their dot."""
    import fnmatch

    if part.startswith(".") and not pattern.startswith("."):
        return False
    return pattern == "**" or fnmatch.fnmatchcase(part, pattern)


def _is_about_hidden_files(line: str) -> bool:
    return line.rstrip("/").rpartition("/")[2].lstrip("!").startswith(".")
