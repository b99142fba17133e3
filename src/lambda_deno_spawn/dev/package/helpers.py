"""esbuild's own functions at the top of a bundle, as CommonJS modules need them here.

Deno's bundler replaces two parts of them in the bundle's text: ``require``, and the
test whether a CommonJS module was an ES module, so that ``import`` gives what it gives
in Node.js. But it does not change the source map, so everything after a replacement is
mapped to wrong lines or columns. It overlooks minified functions that keep their names,
or that have a dollar sign in a name. And if the bundle has no such test of its own, it
replaces that of a package that esbuild has made. So this module makes both
replacements. Does not know how a bundle is made.
Specification: Deno's ``cli/tools/bundle``; esbuild's ``internal/runtime``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Tells Deno's bundler to leave ``require`` alone.
ENVIRON = {"NO_DENO_BUNDLE_HACK": "1"}
# What ``require`` needs, at the top of a bundle.
CREATE_REQUIRE = 'import { createRequire as lambdaRequire } from "node:module";\n'
COMMENT = re.compile(r"^// ", re.MULTILINE)  # above the first module
NAME = r"[\w$]+"
REQUIRE = re.compile(
    rf"({NAME}) ?= ?(?:/\* @__PURE__ \*/ )?\(\(?{NAME}\)? ?=> ?"
    r"typeof require(?: !== \"undefined\"|<\"u\") ?\? ?require ?: ?"
    r"typeof Proxy(?: !== \"undefined\"|<\"u\") ?\? ?"
    rf"new Proxy\({NAME}, ?\{{\s*get: ?\({NAME}, ?{NAME}\) ?=> ?"
    r"\(typeof require(?: !== \"undefined\"|<\"u\") ?\? ?require ?: ?"
    rf"{NAME}\)\[{NAME}\]\s*\}}\) ?: ?{NAME}\)\(function\({NAME}\) ?\{{\s*"
    r"if ?\(typeof require(?: !== \"undefined\"|<\"u\")\) ?"
    r"return require\.apply\(this, ?arguments\);\s*"
    rf"throw (?:new )?Error\('Dynamic require of \"' ?\+ ?{NAME} ?\+ ?"
    r"'\" is not supported'\);?\s*\}\)"
)
# Up to the test of ``__toESM``: whether the importing module wants what Node.js does,
# or the imported one was no ES module. Deno writes "1" for it.
INTEROP = re.compile(
    rf"\((?P<mod>{NAME}), ?(?P<node>{NAME}), ?(?P<to>{NAME})\) ?"
    r"(?P<begin>=> ?\(|\{\s*return )"
    rf"(?P=to) ?= ?(?P=mod) ?!= ?null ?\? ?{NAME}\({NAME}\((?P=mod)\)\) ?: ?\{{\}}, ?"
    r"[\w$.]+\(\s*(?://[^\n]*\s*)*"
    r"(?P<test>(?:[\w$]*\$)?1 "
    r"|(?P=node) ?\|\| ?!(?P=mod) ?\|\| ?!(?P=mod)\.__esModule ?)"
    rf"\? ?[\w$.]+\((?P=to), ?\"default\""
)
END_OF_INTEROP = '"default"'
INTEROP_LENGTH = 800  # with comments
MINIFIED = ("=>(", "{return ")


class Own(NamedTuple):
    """The functions that a bundle has of esbuild's, and not of a package's."""

    has_require: bool
    has_interop: bool


def own_helpers(text: str) -> Own:
    """Return what a bundle has, as Deno wrote it and not minified."""
    first = COMMENT.search(text)
    top = text[: first.start()] if first else text
    return Own(REQUIRE.search(top) is not None, INTEROP.search(top) is not None)


def with_helpers(text: str, own: Own) -> str:
    """Return a bundle whose CommonJS parts load and are imported as in Node.js.

    Lines, and in a minified bundle columns, are those that esbuild wrote. Packages that
    have a copy of such a function have what is in the package.

    Args:
        text: The bundle, as Deno wrote it.
        own: Which of the functions are the bundle's own. With its own ``require``, it
            needs ``CREATE_REQUIRE`` at its top.
    """
    if own.has_require:
        text = REQUIRE.sub(_own_require, text, count=1)
    return _with_interop(text, own)


def _own_require(found: re.Match[str]) -> str:
    made = f"{found[1]} = lambdaRequire(import.meta.url)"
    lines = found[0].count("\n")
    return made + "\n" * lines if lines else made.ljust(len(found[0]))


def _with_interop(text: str, own: Own) -> str:
    pieces, end, at = [], 0, text.find(END_OF_INTEROP)
    is_own = own.has_interop
    while at >= 0:
        after = at + len(END_OF_INTEROP)
        # A search of the whole text would take ten times as long.
        found = INTEROP.search(text, max(end, at - INTEROP_LENGTH), after)
        if found:
            mod, node = found["mod"], found["node"]
            test = f"{node} || !{mod} || !{mod}.__esModule "
            if found["begin"] in MINIFIED:
                test = test.replace(" ", "")
            test = "1".ljust(len(test)) if is_own else test
            pieces += [text[end : found.start("test")], test]
            end, is_own = found.end("test"), False
        at = text.find(END_OF_INTEROP, after)
    return "".join([*pieces, text[end:]]) if pieces else text
