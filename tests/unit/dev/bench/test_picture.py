"""Pictures: well-formed, in proportion, the same each time."""

from __future__ import annotations

from xml.etree import ElementTree

from lambda_deno_spawn.dev.bench.picture import Panel, Row, bars

SVG = "{http://www.w3.org/2000/svg}"
ROWS = [Row("a < b & c"), Row("other", "#123456"), Row("none")]


def test_bars_are_in_proportion_and_carry_their_texts() -> None:
    panel = Panel("time, ms", [10.0, 5.0, None], ["10.0", "5.0", "-"])
    picture = ElementTree.fromstring(bars(ROWS, [panel, panel]))
    rects = [one for one in picture.iter(f"{SVG}rect") if one.get("x") is not None]
    widths = [float(one.attrib["width"]) for one in rects]
    assert len(widths) == 4
    assert widths[0] == 2 * widths[1]
    assert rects[1].get("fill") == "#123456"
    texts = [one.text for one in picture.iter(f"{SVG}text")]
    assert texts[:3] == ["a < b & c", "other", "none"]
    assert texts.count("time, ms") == 2
    assert texts.count("10.0") == 2


def test_everything_is_inside_the_picture() -> None:
    panel = Panel("time, ms", [1.0, 0.0, 3.0], ["1", "0", "3"])
    picture = ElementTree.fromstring(bars(ROWS, [panel]))
    width, height = (float(picture.attrib[name]) for name in ("width", "height"))
    for rect in picture.iter(f"{SVG}rect"):
        left, top = (float(rect.get(name, "0")) for name in ("x", "y"))
        assert left + float(rect.attrib["width"]) <= width
        assert top + float(rect.attrib["height"]) <= height


def test_nothing_but_zeros_can_be_drawn() -> None:
    assert "0.0" in bars([Row("a")], [Panel("none", [0.0], ["0.0"])])
