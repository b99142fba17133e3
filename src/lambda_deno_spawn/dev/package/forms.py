"""The forms that a package can have, and the choice between them.

Knows the files that belong to a package, its size limits, and the order of the steps:
bundle, load once for the cache, zip. Does not know how each step is done, nor when a
package has to be built. Specification: docs/build.md, decision 0045; AWS Lambda
Developer Guide, "Lambda quotas".
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from lambda_deno_spawn import __version__
from lambda_deno_spawn.dev.package.archive import QUICK_LEVEL, Member, write_archive
from lambda_deno_spawn.dev.package.bundle import MODE, bundle
from lambda_deno_spawn.dev.package.deno import read_version, start_version
from lambda_deno_spawn.dev.package.doubts import (
    SOURCE_SUFFIXES,
    Doubt,
    Level,
    find_doubts,
    mentioned_folders,
    named_sources,
)
from lambda_deno_spawn.dev.package.elf import read_binary
from lambda_deno_spawn.dev.package.graph import read_graph
from lambda_deno_spawn.dev.package.inputs import (
    cached_modules,
    packages,
    reached,
)
from lambda_deno_spawn.dev.package.layer import LAYER_RUNTIME_JS, MACHINES
from lambda_deno_spawn.dev.package.node_modules import (
    judge_compiled_files,
    needs_of,
    stage_node_modules,
)
from lambda_deno_spawn.dev.package.project_files import (
    stage_hoisted,
    stage_project_files,
)
from lambda_deno_spawn.dev.package.record import Inputs, Observed, observe
from lambda_deno_spawn.dev.package.request import (
    ALL,
    Package,
    archive_path,
    bundle_path,
    staging_folder,
)
from lambda_deno_spawn.dev.package.resolution import mistaken
from lambda_deno_spawn.dev.package.seed import Seed, seed_cache
from lambda_deno_spawn.dev.project.project import Arch
from lambda_deno_spawn.dev.project.quotas import (
    MB,
    UNZIPPED_LIMIT_BYTES,
    UPLOAD_LIMIT_BYTES,
)
from lambda_deno_spawn.dev.project.selection import Selected, Selection
from lambda_deno_spawn.errors import BuildError
from lambda_deno_spawn.launch.deno_json import config_content, find_config
from lambda_deno_spawn.launch.handler import find_handler
from lambda_deno_spawn.launch.module_cache import PACKAGED_DENO_DIR

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lambda_deno_spawn.dev.package.archive import Written
    from lambda_deno_spawn.dev.package.bundle import Bundle
    from lambda_deno_spawn.dev.package.deno import Deno, Running
    from lambda_deno_spawn.dev.package.graph import Graph
    from lambda_deno_spawn.dev.package.request import BuildOptions
    from lambda_deno_spawn.dev.project.project import Project

# Keys of deno.json that a bundle needs at run time; the build uses the others.
BUNDLED_CONFIG_KEYS = ("permissions", "unstable")
# Files that Deno reads to resolve the imports of unbundled modules.
RESOLUTION_FILES = ("deno.json", "deno.jsonc", "deno.lock", "package.json")
SCRIPT_SUFFIXES = (".js", ".mjs", ".cjs")
NPMRC = ".npmrc"
LISTING = "registry.json"  # of a package's versions, in Deno's cache
# Lines of .npmrc that Deno needs to find packages; the others may contain tokens.
NPMRC_LINE = re.compile(r"(?:@[\w.-]+:)?registry\s*=\s*(?!.*@).*")
# Forms of a package, as the command's JSON names them.
FORMS = {Level.ALL: "bundle", Level.OWN: "packages", Level.NOTHING: "files"}
FOLDERS = {Level.ALL: ALL, Level.OWN: "own", Level.NOTHING: "nothing"}
# Errors that a package has in each form if it has them in one.
SAME_CAUSE = ("Cannot read the imports", "Cannot load the package", "Cannot bundle")
BEGUN = "begun.zip"  # with the files of a package, without its cache
SEED_FILE = "lambda-deno-spawn.json"  # in the cache: versions it was made for


class Built(NamedTuple):
    """The result of a build.

    Attributes:
        package: The package.
        observed: The state of what it was made from; None: that is not known, or
            another build may succeed where this one did not.
    """

    package: Package
    observed: Observed | None


def make_package(
    options: BuildOptions,
    deno: Deno,
    source: Path,
    scratch: Path,
    *,
    bundling: Running | None,
) -> Built:
    """Build a package in the best form, and write it.

    Args:
        options: The package.
        deno: The project's Deno.
        source: The handler's module.
        scratch: Folder for temporary files.
        bundling: The bundler at work for the first form, if it was started.

    Raises:
        BuildError: The build failed; an earlier package is unchanged.
    """
    out = archive_path(options)
    apart = [str(out), str(scratch), deno.environ.get("DENO_DIR") or str(scratch)]
    selection = Selection(
        options.project,
        map(os.path.realpath, apart),
        os.path.realpath(out.parent),
    )
    builder = _Builder(options, deno, source, selection, scratch, bundling)
    form = builder.best_form()
    notes = [*form.notes, *selection.notes()]
    members = list(_members(form.staged))
    added = list(_seed_members(form.seed, form.deno_version, options.arch))
    sizes = {member.name: _size(member) for member in (*members, *added)}
    _refuse_too_large(sizes)
    # Always in this order, whether or not the first part exists already.
    begun = form.begun or _begin(scratch, members, out)
    written = write_archive(out, added, begun, level=QUICK_LEVEL)
    if written.zipped_bytes > UPLOAD_LIMIT_BYTES:
        notes.append(
            f"the package has {written.zipped_bytes / MB:.0f} MB zipped, and Lambda "
            "accepts 50 MB directly: `deploy` uploads it through S3"
        )
    package = Package(
        path=written.path,
        sha256=written.sha256,
        zipped_bytes=written.zipped_bytes,
        unzipped_bytes=written.unzipped_bytes,
        handler=options.project.function.handler,
        arch=options.arch,
        form=FORMS[form.level],
        deno=form.deno_version,
        members=sizes,
        notes=tuple(notes),
    )
    is_complete = form.seed.failure is None  # else it may succeed next time
    return Built(package, builder.observed(form) if is_complete else None)


@dataclass(slots=True)
class _Form:
    """The files of a package in one of its forms.

    Attributes:
        level: How much of it is bundled.
        staged: Folder with the files.
        notes: Sentences that the user should read.
        doubts: Modules that may not find something in this form.
        begun: An archive of the staged files; None: it is not written yet.
        observed: The state of what it was made from, in a list; None: not looked at.
    """

    level: Level
    staged: Path
    notes: list[str] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    seed: Seed = field(default_factory=lambda: Seed({}))
    deno_version: str | None = None
    begun: Written | None = None
    observed: list[Observed | None] | None = None


class _Builder:
    """Makes a package in one form after another, until one works as the files do."""

    def __init__(
        self,
        options: BuildOptions,
        deno: Deno,
        source: Path,
        selection: Selection,
        scratch: Path,
        bundling: Running | None,
    ) -> None:
        self._options = options
        self._bundling = bundling
        self._known_version: str | None = None
        self._deno = deno
        self._source = source
        self._selection = selection
        self._scratch = scratch
        self._graph: Graph | None = None
        self._read: set[Path] = set()  # by the bundler
        self._urls: set[str] = set()  # likewise

    @property
    def _modules(self) -> Graph:
        if self._graph is None:
            self._graph = read_graph(self._deno, self._source, self._scratch)
        return self._graph

    def best_form(self) -> _Form:
        """Return the package in the form that bundles most without breaking it.

        Raises:
            BuildError: There is no such form; the reason is that of the first one.
        """
        is_bundled = self._options.wants_bundle
        if is_bundled is not None:
            form = self._made(Level.ALL if is_bundled else Level.NOTHING)
            _refuse_broken(form.doubts)
            self._load(form)
            return self._told(form, form.doubts)
        return self._first_that_works()

    def _first_that_works(self) -> _Form:
        reasons: list[Doubt | str] = []
        refusals: list[BuildError] = []
        made: list[_Form] = []
        wanted = Level.ALL
        for level in Level:
            if level < wanted or (
                level is Level.OWN and made and not self._has_packages
            ):
                continue
            try:
                form = self._made(level)
                wanted = max((doubt.level for doubt in form.doubts), default=level)
                if wanted <= level:
                    self._load(form)
            except BuildError as error:
                refusals.append(error)
                reasons.append(_first_line(error))
                continue
            made.append(form)
            if wanted <= level and form.seed.failure is None:
                return self._told(form, reasons)
            reasons += form.doubts or [_first_line(form.seed.failure)]
        return self._least_evil(made, refusals)

    @property
    def _has_packages(self) -> bool:
        return bool(self._modules.packages)

    def _least_evil(self, made: list[_Form], refusals: list[BuildError]) -> _Form:
        """Return a form that may work, as none is known to.

        If a module cannot be loaded here in any form, its code alone decides.
        """
        for form in sorted(made, key=lambda form: bool(form.doubts)):
            broken = [doubt for doubt in form.doubts if doubt.is_certain]
            if not broken:
                if form.deno_version is None:
                    self._load(form)
                return self._told(form, made[0].doubts)
        if made and refusals:
            raise BuildError(
                f"Cannot bundle the function, as {_listed(made[0].doubts)}, and cannot "
                f"package its files as they are either: {refusals[-1]}"
            ) from refusals[-1]
        if not refusals:
            raise BuildError(f"Cannot bundle the function: {_listed(made[0].doubts)}")
        first, last = refusals[0], refusals[-1]
        if str(last).startswith(SAME_CAUSE):
            raise first
        raise BuildError(
            f"{last}; the function cannot be bundled either: {_first_line(first)}"
        ) from first

    def _told(self, form: _Form, reasons: Sequence[Doubt | str]) -> _Form:
        """Add the notes on what the form of a package may mean for it.

        Raises:
            BuildError: Deno exits while it loads the module.
        """
        failure = form.seed.failure
        if form.seed.has_exited:
            raise BuildError(
                f"Cannot load the package: {failure}; set the variables it needs with "
                "--env, or use --no-cache to package it without loading it"
            )
        if failure is not None:
            form.notes.append(
                f"{failure}; its cache is incomplete; set the variables it needs with "
                "--env"
            )
        if form.doubts:
            form.notes.append(
                f"{_listed(form.doubts)}; that may be missing in a bundle: test it, or "
                "use --no-bundle"
            )
        elif reasons and form.level is Level.OWN:
            form.notes.append(
                f"npm packages are packaged as they are, beside the bundle: "
                f"{_listed(reasons)}"
            )
        elif reasons and form.level is Level.NOTHING:
            form.notes.append(
                f"the files are packaged as they are, without a bundle: "
                f"{_listed(reasons)}"
            )
        if self._options.is_minified and form.level is Level.OWN:
            form.notes.append("--minify does not minify the npm packages")
        elif self._options.is_minified and form.level is Level.NOTHING:
            form.notes.append("--minify has no effect: there is no bundle")
        return form

    def observed(self, form: _Form) -> Observed | None:
        """Return the state of what a package was made from; None: not all is known."""
        if form.observed is None:
            inputs = self._inputs()
            out, root = archive_path(self._options), self._deno.task_root
            form.observed = [inputs and observe(out, inputs, root)]
        return form.observed[0]

    def _inputs(self) -> Inputs | None:
        task_root, graph = self._deno.task_root, self._graph
        files = {file.path for file in self._selection.files()}
        files |= self._read | {self._source}
        if graph is not None:
            files |= graph.own | graph.package_files
            files |= {Path(one["localPath"]) for one in graph.npm.values()}
        named, folders = reached(files, task_root)
        files |= named | self._selection.looked_at()
        if self._urls:
            cached = cached_modules(self._urls, task_root, self._deno.environ)
            if cached is None:
                return None
            files |= cached
        return Inputs(files, folders | packages(files, task_root))

    # One form.

    def _made(self, level: Level) -> _Form:
        form = _Form(level, staging_folder(self._scratch, FOLDERS[level]))
        self._stage(form)
        return form

    def _stage(self, form: _Form) -> None:
        form.staged.mkdir(parents=True, exist_ok=True)
        form.notes, form.doubts = [], []
        if form.level is Level.NOTHING:
            self._stage_files(form)
        else:
            self._stage_bundle(form)
        form.notes += judge_compiled_files(form.staged, self._options.arch)

    def _deno_version(self) -> str:
        """Return the version of the Deno that loads the module."""
        if self._known_version is None:
            binary = self._deno.binary
            if (target := self._options.target_deno) is not None:
                _check_machine(target, self._options.arch)
                binary = str(target)
            self._known_version = read_version(start_version(binary), binary)
        return self._known_version

    def _load(self, form: _Form) -> None:
        """Load the module for its cache; it may change its files, but no package."""
        options = self._options
        if not options.is_seeded:
            return
        before = _states(form.staged)
        members = list(_members(form.staged))
        out = archive_path(options)
        if options.target_deno is not None:
            self._deno_version()  # refused before it loads anything
        # Deno loads the module meanwhile.
        with ThreadPoolExecutor(1) as pool:
            begun = pool.submit(_begin, form.staged.parent, members, out)
            version = pool.submit(self._deno_version)
            pool.submit(self.observed, form)
            form.seed = _seed(options, self._deno, form.staged)
        form.deno_version = version.result()
        if _states(form.staged) != before:
            shutil.rmtree(form.staged)
            self._stage(form)
        else:
            form.begun = begun.result()
        form.notes += form.seed.notes

    def _stage_bundle(self, form: _Form) -> None:
        """Write the bundle, and the files that it may read."""
        options, deno, source = self._options, self._deno, self._source
        task_root, staged = deno.task_root, form.staged
        external, running = set[str](), None
        if form.level is Level.ALL:
            running, self._bundling = self._bundling, None  # it serves once
        else:
            external = self._modules.packages
        target = bundle_path(staged, task_root, source)
        bundled = bundle(
            deno,
            source,
            target,
            export=_export(options.project),
            minify=options.is_minified,
            has_map=options.has_map,
            external=external,
            running=running,
        )
        self._read |= bundled.inputs
        self._urls |= bundled.urls
        doubts = [
            *find_doubts(bundled.modules),
            *mistaken(bundled, task_root, source.parent),
            *self._fixed_modes(bundled),
        ]
        form.doubts = [doubt for doubt in doubts if doubt.level > form.level]
        form.notes += _copy_all(self._data(bundled), staged)
        if form.level is Level.OWN:
            self._stage_resolution(form, source.with_name(target.name))
            return
        config = find_config(task_root)
        content = {} if config is None else config_content(config)
        kept = {key: content[key] for key in BUNDLED_CONFIG_KEYS if key in content}
        if kept:
            text = json.dumps(kept, indent=2) + "\n"
            (staged / "deno.json").write_text(text, "utf-8")

    def _fixed_modes(self, bundled: Bundle) -> Iterator[Doubt]:
        """Yield doubts about modules that behave as the bundler says, by ``NODE_ENV``.

        The project's own may ask for anything. Packages look for "production" only, so
        with them it counts what the project says.
        """
        is_minified = self._options.is_minified
        fixed = "production" if is_minified else "development"
        project, given = self._options.project, self._options.variables
        wanted = {**project.variables, **given}.get(MODE)
        if wanted == fixed:
            return
        option = " made with --minify" if is_minified else ""
        reason = f"reads {MODE}, which is {fixed!r} in a bundle{option}"
        for part in bundled.fixed:
            path = part.package_path
            if path is None:
                yield Doubt(part.name, reason, Level.NOTHING)
            elif wanted is not None:
                yield Doubt(path, reason, Level.OWN)

    def _data(self, bundled: Bundle) -> list[Selected]:
        """Return the files that a bundle does not contain, but may read.

        Of source files these are the ones that a module names, or whose folder it
        names, and JavaScript in folders without a bundled module, such as scripts for
        browsers.
        """
        here, root = self._source.parent, str(self._deno.task_root)
        named: set[str] = set()
        mentioned: set[str] = set()
        for module in bundled.modules:
            if module.package_path is None and "://" not in module.name:
                folder = os.path.normpath((here / module.name).parent)
                named |= named_sources(module.text, [folder, root])
                inner = os.path.relpath(folder, root)
                mentioned |= mentioned_folders(module.text, inner)
        folders = {file.parent for file in bundled.files}
        return [
            file
            for file in self._selection.files()
            if not file.name.endswith(SOURCE_SUFFIXES)
            or str(file.path) in named
            or self._selection.is_included(file.name)
            or (
                file.path not in bundled.files
                and file.path.parent not in folders
                and (
                    file.name.endswith(SCRIPT_SUFFIXES)
                    or not mentioned.isdisjoint(map(str, PurePath(file.name).parents))
                )
            )
        ]

    def _stage_files(self, form: _Form) -> None:
        """Copy the files unchanged, with the npm packages that they import.

        Raises:
            BuildError: A module is outside the project or on a server.
        """
        task_root = self._deno.task_root
        _import_map(task_root)  # refused before what is imported by it
        graph = self._modules
        files = {file.name: file for file in self._selection.files()}
        for path in sorted(graph.own):
            if not path.is_relative_to(task_root):
                raise BuildError(
                    f"Cannot package {str(path)!r}: it is outside the project's folder "
                    f"{str(task_root)!r}; move it there, or bundle it"
                )
            name = path.relative_to(task_root).as_posix()
            files[name] = Selected(name, path)
        for specifier in sorted(graph.servers):
            raise BuildError(
                f"Cannot package {specifier!r} unbundled: it is on a server; set "
                '"vendor": true in deno.json and run `deno install`, or bundle it'
            )
        form.notes += _copy_all(list(files.values()), form.staged)
        form.notes += graph.notes(task_root)
        self._stage_resolution(form, self._source)

    def _stage_resolution(self, form: _Form, module: Path) -> None:
        """Copy npm packages, and the files by which Deno finds them.

        Args:
            form: The package.
            module: The module that is loaded, as if it was in the project.
        """
        task_root, staged, selection = (
            self._deno.task_root,
            form.staged,
            self._selection,
        )
        names = [*RESOLUTION_FILES, *_import_map(task_root)]
        files = [
            Selected(name, task_root / name)
            for name in names
            if (task_root / name).is_file() and not selection.is_excluded(name)
        ]
        form.notes += _copy_all(files, staged)
        npmrc = task_root / NPMRC
        if npmrc.is_file() and not selection.is_excluded(NPMRC):
            lines = npmrc.read_text("utf-8-sig", errors="replace").splitlines()
            kept = [line for line in lines if NPMRC_LINE.fullmatch(line.strip())]
            if kept:
                (staged / NPMRC).write_text("\n".join([*kept, ""]), "utf-8")
        if (task_root / "node_modules").is_dir():
            stage_node_modules(
                task_root, self._modules.package_files, selection, staged
            )
        else:
            _stage_npm(self._modules.npm, staged / PACKAGED_DENO_DIR / "npm")
        stage_hoisted(task_root, staged)
        stage_project_files(self._deno, module, staged)
        if form.level is Level.OWN:
            _make_esm(staged / "package.json")


def _refuse_broken(doubts: Sequence[Doubt]) -> None:
    """Refuse a bundle with a module that breaks in it.

    Raises:
        BuildError: There is one.
    """
    if broken := [doubt for doubt in doubts if doubt.is_certain]:
        raise BuildError(
            f"Cannot bundle the function: {_listed(broken)}; use --no-bundle (bundle = "
            "false in lambda.toml)"
        )


def _listed(reasons: Sequence[Doubt | str | None], shown: int = 3) -> str:
    found = list(dict.fromkeys(str(reason) for reason in reasons))
    more = f" and {len(found) - shown} more" if len(found) > shown else ""
    return ", ".join(found[:shown]) + more


def _first_line(error: BuildError | str | None) -> str:
    """Return an error in one line: the attempt, and the first line of the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])


def _import_map(task_root: Path) -> list[str]:
    """Return the name of the import map that the project's deno.json names.

    Raises:
        BuildError: It is outside the project.
    """
    config = find_config(task_root)
    if config is None or Path(config).parent != task_root:
        return []  # what is above is merged with what is here
    named = config_content(config).get("importMap")
    if not isinstance(named, str) or "://" in named:
        return []
    path = Path(os.path.normpath(task_root / named))
    if not path.is_relative_to(task_root):
        raise BuildError(
            f"Cannot package the import map {named!r} that deno.json names: it is "
            "outside the project's folder; move it there, or bundle the function"
        )
    return [path.relative_to(task_root).as_posix()]


def _make_esm(manifest: Path) -> None:
    """Declare the modules beside a package.json as what a bundle is: an ES module."""
    try:
        content = json.loads(manifest.read_text("utf-8-sig"))
    except (OSError, ValueError):
        return
    if isinstance(content, dict) and content.get("type") != "module":
        text = json.dumps({**content, "type": "module"}, indent=2) + "\n"
        manifest.write_text(text, "utf-8")


def _stage_npm(npm: Mapping[str, Any], target: Path) -> None:
    """Copy npm packages from Deno's cache, in the same layout.

    Deno reads the listings of all packages that these may use, also of optional ones
    that are not installed.
    """
    for package in npm.values():
        local = Path(package["localPath"])
        inner = Path(package["name"]) / local.name  # version, and number of a copy
        registry = local.parents[len(inner.parts) - 1]
        place = target / registry.name
        if local.is_dir():  # not an optional package for another platform
            shutil.copytree(local, place / inner, symlinks=True, dirs_exist_ok=True)
        used = [one.rpartition("@")[0] for one in package.get("dependencies", ())]
        for name in (package["name"], *used, *needs_of(local)):
            listing = registry / name / LISTING
            if listing.is_file() and not (copy := place / name / LISTING).exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(listing, copy)


def _export(project: Project) -> str:
    """Return the first part of the handler's export."""
    function = project.function
    return find_handler(function.task_root, function.handler).export.split(".")[0]


def _copy_all(files: Sequence[Selected], staged: Path) -> list[str]:
    """Copy files, after checking their total size.

    Returns:
        Notes about links out of the project, as sentences.
    """
    _refuse_too_large({file.name: _file_size(file.path) for file in files})
    made: set[str] = set()
    for file in files:
        target = f"{staged}/{file.name}"
        if (folder := target.rpartition("/")[0]) not in made:
            Path(folder).mkdir(parents=True, exist_ok=True)
            made.add(folder)
        if file.name.endswith("/"):
            continue
        try:
            shutil.copyfile(file.path, target)
            shutil.copymode(file.path, target)
        except OSError as error:
            raise BuildError(
                f"Cannot package {str(file.path)!r}: {_problem(file.path, error)}"
            ) from error
    return [
        f"{file.name!r} is a link to {str(file.target)!r}, outside the project; the "
        "content is packaged"
        for file in files
        if file.target is not None
    ]


def _problem(path: Path, error: OSError) -> str:
    """Return why a file cannot be copied."""
    if path.is_symlink() and not path.exists():
        return (
            f"it is a link to {str(path.readlink())!r}, which does not exist; remove "
            "the link, or leave it out with `exclude` in lambda.toml"
        )
    return error.strerror or str(error)


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # copying the file reports the error


def _seed(options: BuildOptions, deno: Deno, loaded: Path) -> Seed:
    """Make the cache with a Deno for the target, or a part of it with another."""
    binary, note = deno.binary, None
    has_code = options.arch is Arch.here()
    if options.target_deno is not None:
        binary, has_code = str(options.target_deno), True
    elif not has_code:
        note = (
            "V8's code is not in the cache: it depends on the instruction set, and "
            f"this machine cannot run {options.arch.value}; for a faster first start "
            "build on such a machine, or give a Deno for it that runs here in "
            "--target-deno"
        )
    project = options.project

    def with_original_paths(text: str) -> str:
        return text.replace(str(loaded), str(deno.task_root))

    try:
        seed = seed_cache(
            replace(project, env={**project.env, **options.variables}),
            loaded,
            LAYER_RUNTIME_JS,
            binary=binary,
            has_code=has_code,
            environ=deno.environ,
        )
    except BuildError as error:
        raise BuildError(with_original_paths(str(error))) from error
    notes = [*map(with_original_paths, seed.notes), *([note] if note else [])]
    failure = None if seed.failure is None else with_original_paths(seed.failure)
    return replace(seed, notes=tuple(notes), failure=failure)


def _check_machine(binary: Path, arch: Arch) -> None:
    """Reject a Deno for another instruction set; accept scripts, which run a Deno."""
    with contextlib.suppress(OSError), binary.open("rb") as file:
        found = read_binary(file)
        if found is not None and found.machine != MACHINES[arch]:
            raise BuildError(
                f"Cannot use {str(binary)!r} for {arch.value}: it is for "
                f"{found.machine}; give a Deno for {arch.value}"
            )


def _states(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return values that change with any file in a folder, by their paths."""
    found: dict[str, tuple[int, ...]] = {}
    for inner, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(inner, name)
            status = path.lstat()
            # No program can set the time of the last change of a file's state (ctime).
            found[str(path)] = (status.st_ino, status.st_ctime_ns, status.st_size)
    return found


def _members(staged: Path) -> Iterator[Member]:
    for folder, folders, files in os.walk(staged):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        if not files and not folders and folder != str(staged):
            inner = Path(folder).relative_to(staged).as_posix()
            yield Member(f"{inner}/", b"", stat.S_IFDIR | 0o755)
        for name in (*files, *links):
            path = Path(folder) / name
            inner = path.relative_to(staged).as_posix()
            if path.is_symlink():
                target = os.fsencode(path.readlink())
                yield Member(inner, target, stat.S_IFLNK | 0o777)
            else:
                is_program = path.stat().st_mode & stat.S_IXUSR
                yield Member(inner, path, 0o755 if is_program else 0o644)


def _seed_members(seed: Seed, version: str | None, arch: Arch) -> Iterator[Member]:
    if not seed.files:
        return
    for name, content in seed.files.items():
        yield Member(f"{PACKAGED_DENO_DIR}/{name}", content)
    made_for = {"deno": version, "arch": arch.value, "runtime": __version__}
    text = json.dumps(made_for, indent=2) + "\n"
    yield Member(f"{PACKAGED_DENO_DIR}/{SEED_FILE}", text.encode())


def _size(member: Member) -> int:
    content = member.content
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _refuse_too_large(sizes: Mapping[str, int]) -> None:
    unzipped = sum(sizes.values())
    if unzipped <= UNZIPPED_LIMIT_BYTES:
        return
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:3]
    listed = ", ".join(f"{name} ({size / MB:.0f} MB)" for name, size in largest)
    raise BuildError(
        f"Cannot build a package of {unzipped / MB:.0f} MB: Lambda unzips at most "
        f"250 MB, layers included; the largest files are {listed}; leave out files "
        "with `exclude` in lambda.toml"
    )


def _begin(folder: Path, members: Sequence[Member], out: Path) -> Written:
    """Write an archive with a package's files in a temporary folder."""
    path = folder / BEGUN
    try:
        return write_archive(path, members, level=QUICK_LEVEL)
    except BuildError as error:
        place = f"{str(out)!r}, which is prepared in {str(folder)!r}"
        raise BuildError(str(error).replace(repr(str(path)), place)) from error
