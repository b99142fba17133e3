"""esbuild's functions in a bundle, as Deno's bundler leaves them."""

from __future__ import annotations

import pytest

from lambda_deno_spawn.dev.package.helpers import Own, own_helpers, with_helpers

PLAIN_REQUIRE = """var __require = /* @__PURE__ */ ((x) => \
typeof require !== "undefined" ? require : typeof Proxy !== "undefined" ? new Proxy(x, {
  get: (a, b) => (typeof require !== "undefined" ? require : a)[b]
}) : x)(function(x) {
  if (typeof require !== "undefined") return require.apply(this, arguments);
  throw Error('Dynamic require of "' + x + '" is not supported');
});
"""
REQUIRE = (
    '{0}=(e=>typeof require<"u"?require:typeof Proxy<"u"?new Proxy(e,{{get:({1},n)=>'
    '(typeof require<"u"?require:{1})[n]}}):e)(function(e){{if(typeof require<"u")'
    "return require.apply(this,arguments);throw Error('Dynamic require of \"'+e+'\" is "
    "not supported')}})"
)
PLAIN_INTEROP = """var {0} = (mod, isNodeMode, target) => (target = mod != null ? \
__create(__getProtoOf(mod)) : {{}}, __copyProps(
  // If the importer is in node compatibility mode or this is not an ESM
  {1} ? __defProp(target, "default", {{ value: mod, enumerable: true }}) : target,
  mod
));
"""
TEST = "isNodeMode || !mod || !mod.__esModule"
INTEROP = (
    '({0},{1},s)=>(s={0}!=null?f(m({0})):{{}},w({2}?c(s,"default",{{a:1}}):s,{0}))'
)
MODULE = "\n// a.js\nvar a = 1;\n"
BOTH, NONE = Own(True, True), Own(False, False)


def test_what_a_bundle_has_of_its_own_comes_before_its_modules() -> None:
    require, interop = PLAIN_REQUIRE, PLAIN_INTEROP.format("__toESM", "1")
    assert own_helpers(require + interop + MODULE) == BOTH
    assert own_helpers(MODULE + require + interop) == NONE
    assert own_helpers(require + MODULE + interop) == Own(True, False)
    assert own_helpers("var a = 1;\n") == NONE


def test_no_line_of_a_bundle_begins_elsewhere() -> None:
    text = f"{PLAIN_REQUIRE}{PLAIN_INTEROP.format('__toESM', '1')}{MODULE}"
    replaced = with_helpers(text, BOTH)
    assert replaced.count("\n") == text.count("\n")
    assert "var __require = lambdaRequire(import.meta.url)\n" in replaced
    assert replaced.endswith(MODULE)


@pytest.mark.parametrize("names", [("Rt", "t"), ("$", "$t"), ("Q$", "t$2")])
def test_no_column_of_a_minified_bundle_is_elsewhere(names: tuple[str, str]) -> None:
    before, after = "var a=1,", ";var b='Dynamic require of';\n"
    text = before + REQUIRE.format(*names) + after
    replaced = with_helpers(text, Own(True, False))
    assert len(replaced) == len(text)
    assert replaced.startswith(f"{before}{names[0]} = lambdaRequire(import.meta.url) ")
    assert replaced.endswith(after)


@pytest.mark.parametrize("mod", ["e", "$", "$e"])
@pytest.mark.parametrize("node", ["r", "$", "r$", "$r"])
def test_the_test_for_es_modules_is_node_s_and_as_long_as_before(
    mod: str, node: str
) -> None:
    written = INTEROP.format(mod, node, f"{node}||!{mod}||!{mod}.__esModule")
    # What a regular expression with \\w makes of it.
    ends = "$" if "$" in node else ""
    by_deno = written if "$" in mod else INTEROP.format(mod, node, f"{ends}1 ")
    if node == "r$" or node == "$":
        by_deno = written
    replaced = with_helpers(f"var u={by_deno};x();", Own(False, True))
    assert len(replaced) == len(f"var u={written};x();")
    assert "w(1 " in replaced
    assert "__esModule" not in replaced


@pytest.mark.parametrize("by_deno", ["1", TEST])
def test_the_copy_in_a_package_stays_as_the_package_has_it(by_deno: str) -> None:
    copy = PLAIN_INTEROP.format("toESM", TEST)
    text = MODULE + PLAIN_INTEROP.format("toESM", by_deno)
    assert with_helpers(text, NONE) == MODULE + copy
    own = PLAIN_INTEROP.format("__toESM", TEST)
    replaced = with_helpers(own + text, Own(False, True))
    assert replaced.endswith(MODULE + copy)
    minified = f"var t=({INTEROP.format('e', 'r', '1 ')});"
    assert "w(r||!e||!e.__esModule?c" in with_helpers(minified, NONE)


def test_a_bundle_without_such_functions_stays_as_it_is() -> None:
    text = "var a=1;throw Error('Dynamic require of');b=x?y:\"default\""
    assert with_helpers(text, NONE) is text
