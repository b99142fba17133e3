"""Names of classes that esbuild has changed."""

from __future__ import annotations

import pytest

from lambda_deno_spawn.dev.package.class_names import with_class_names


def bundled(declared: str, source: str) -> str:
    """Return what follows the first line of a class in a module with a source."""
    head = f"// a.ts\nvar zero = 0;\n\n// lib/b.ts\n// a comment\n{declared}"
    text = with_class_names(
        f"{head}\n  x = 1;\n}};\n", {"a.ts": "", "lib/b.ts": source}.get
    )
    assert text.startswith(head)
    rest = text.removeprefix(head)
    assert rest.endswith("\n  x = 1;\n};\n")
    return rest.removesuffix("\n  x = 1;\n};\n")


@pytest.mark.parametrize(
    ("declared", "source", "changed", "name"),
    [
        ("var A = class _A {", "class A { x = A; }", "_A", "A"),
        ("var A3 = class _A extends B2 {", "export class A extends B {", "_A", "A"),
        ("var A2 = class extends B {", "class A extends B {", "A2", "A"),
        ("var A2 = class {", "const A = class {", "A2", "A"),
        ("    class V3 {", "function f() { class V {", "V3", "V"),
        ("  return class _M2 extends Base {", "return class M extends", "_M2", "M"),
        ("var b_default = class {", "export default class {", "b_default", "default"),
    ],
)
def test_a_name_is_that_of_the_module(
    declared: str, source: str, changed: str, name: str
) -> None:
    added = bundled(declared, source)
    assert added == f' static {{ lambdaName(this, "{changed}", "{name}"); }}'


@pytest.mark.parametrize(
    ("declared", "source"),
    [
        ("var A = class {", "class A {"),
        ("var S3 = class {", "class S3 {"),
        ("var A = class _A {", "const A = class _A {"),  # its own
        ("var A2 = class {", "class Other {"),
        ("var A2 = class {", ""),  # not known
        ("export default class {", "export default class {"),
        ("  const text = `class _A {", "const text = `class _A {"),
        ("var A = class _A { }", "class A { }"),  # not as esbuild writes it
    ],
)
def test_what_is_not_known_to_be_changed_stays(declared: str, source: str) -> None:
    assert bundled(declared, source) == ""


def test_a_bundle_without_such_classes_stays_the_same() -> None:
    text = "// a.ts\nvar one = 1;\n"
    assert with_class_names(text, {"a.ts": ""}.get) is text
