"""The layers of a function: the runtime's, updated in place, beside all others.

Knows which layer replaces which, which ones fit, and which have to be published first.
Does not call AWS: the same states always give the same ARNs. Specification:
docs/deploy.md, "layers"; AWS "Lambda quotas".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.aws.plan import Change, ResultOf
from lambda_deno_spawn.dev.aws.publish import LAYER_PREFIX
from lambda_deno_spawn.dev.project.quotas import LAYERS_LIMIT
from lambda_deno_spawn.errors import DeployError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lambda_deno_spawn.dev.aws.publish import LayerZip
    from lambda_deno_spawn.dev.aws.wanted import Current, Wanted


def planned_layers(wanted: Wanted, current: Current) -> list[str | ResultOf]:
    """Return the wanted layers of a function, in order.

    Returns:
        ARNs of layer versions; a ``ResultOf`` stands for one that the plan publishes.

    Raises:
        UsageError: Together with other layers, there are more than Lambda allows.
        DeployError: A layer does not exist, or does not fit.
    """
    if wanted.layers:
        for arn in wanted.layers:
            version = current.layers.get(arn)
            if version is None:
                raise DeployError(
                    f"Cannot use the layer {arn!r}: there is no such version; choose "
                    "one from `lambda-deno-spawn layer list`"
                )
            _check_layer(arn, version.archs, version.runtimes, wanted)
        return list(wanted.layers)
    _refuse_missing(wanted, current)
    names = wanted.layer_names
    ours = {layer_kind(name): _own_layer(name, wanted, current) for name in names}
    there = () if current.function is None else current.function.layers
    layers = _in_place(there, ours)
    if len(layers) > LAYERS_LIMIT:
        others = len(layers) - len(ours)
        raise UsageError(
            f"Cannot use {len(layers)} layers: the runtime needs {len(ours)}, the "
            f"function has {others} others, and Lambda accepts {LAYERS_LIMIT}; list "
            "all wanted layers with --layer"
        )
    return layers


def unpublished_layers(wanted: Wanted, current: Current) -> list[LayerZip]:
    """Return the runtime's layers that have to be published first."""
    if wanted.layers:
        return []
    return [
        current.built[name]
        for name in wanted.layer_names
        if current.layers.get(name) is None
    ]


def missing_layers(wanted: Wanted, current: Current) -> list[str]:
    """Return the names of the runtime's layers that are neither published nor built."""
    if wanted.layers:
        return []
    return [
        name
        for name in wanted.layer_names
        if current.layers.get(name) is None and current.built.get(name) is None
    ]


def layer_kind(name: str) -> str:
    """Return the kind of a layer of the runtime, from its name."""
    return name.removeprefix(LAYER_PREFIX).partition("-")[0]


def layer_changes(
    before: Iterable[str], after: Sequence[str | ResultOf]
) -> Iterable[Change]:
    """Return the layers that are added, removed or get another version."""
    old = {arn.rpartition(":")[0]: arn for arn in before}
    new: dict[str, str | ResultOf] = {}
    for item in after:
        is_known = isinstance(item, str)
        new[str(item).rpartition(":")[0] if is_known else str(item)] = item
    for name, item in new.items():
        if old.get(name) != item:
            shown = (
                f"{item.step}, once published" if isinstance(item, ResultOf) else item
            )
            yield Change("layer", old.get(name), shown)
    for name, arn in old.items():
        if name not in new:
            yield Change("layer", arn, None, loses=True)


def _in_place(
    there: Iterable[str], ours: dict[str, str | ResultOf]
) -> list[str | ResultOf]:
    """Replace each of our layers in its place; append those that are new."""
    waiting = dict(ours)
    layers: list[str | ResultOf] = []
    for arn in there:
        name = arn.split(":")[6]
        if not name.startswith(LAYER_PREFIX):
            layers.append(arn)
        elif (kind := layer_kind(name)) in waiting:
            layers.append(waiting.pop(kind))
    return [*layers, *waiting.values()]


def _own_layer(name: str, wanted: Wanted, current: Current) -> str | ResultOf:
    version = current.layers.get(name)
    if version is not None:
        _check_layer(version.arn, version.archs, version.runtimes, wanted)
        return version.arn
    built = current.built[name]
    _check_layer(str(built.path), (built.arch,), built.runtimes, wanted)
    return ResultOf(name, "LayerVersionArn")


def _refuse_missing(wanted: Wanted, current: Current) -> None:
    missing = missing_layers(wanted, current)
    if not missing:
        return
    kinds = " ".join(f"--kind {layer_kind(name)}" for name in missing)
    raise DeployError(
        f"Cannot find the layer {' and '.join(map(repr, missing))} in "
        f"{current.place.region}: it is neither published nor built; run "
        f"`lambda-deno-spawn layer build {kinds} --arch {wanted.arch}` first"
    )


def _check_layer(
    shown: str, archs: tuple[str, ...], runtimes: tuple[str, ...], wanted: Wanted
) -> None:
    if archs and wanted.arch not in archs:
        raise DeployError(
            f"Cannot use the layer {shown!r}: it is for {', '.join(archs)}, and the "
            f"function for {wanted.arch}; use --arch {archs[0]}, or another layer"
        )
    if runtimes and wanted.runtime not in runtimes:
        raise DeployError(
            f"Cannot use the layer {shown!r}: it is for {', '.join(runtimes)}, and "
            f"the function for {wanted.runtime}; use --runtime {_python_of(runtimes)}, "
            "or build the layer with `lambda-deno-spawn layer build --kind runtime "
            f"--python {wanted.runtime.removeprefix('python')}` and publish it"
        )


def _python_of(runtimes: tuple[str, ...]) -> str:
    """Return a runtime that needs no interpreter layer, if there is one."""
    return next((name for name in runtimes if name.startswith("python")), runtimes[0])
