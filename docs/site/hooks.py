"""Build hooks of the documentation site, called by MkDocs (see mkdocs.yml).

The pages in docs/ are written to be read in the repository as well. The hooks add what
exists elsewhere (README, changelog, decisions), and turn links that leave docs/ into
addresses of the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# Pages of the site that are files elsewhere in the repository.
ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "reference/changelog.md",
    "CONTRIBUTING.md": "reference/contributing.md",
}
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    made = {target: _from_root(source) for source, target in ELSEWHERE.items()}
    made["decisions/index.md"] = _decisions()
    for path, text in made.items():
        page = File.generated(config, path, content=text)
        page.inclusion = page.inclusion.INCLUDED
        files.append(page)
    return files


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Point links that leave docs/ to the repository."""
    here = posixpath.dirname(page.file.src_uri)

    def rewritten(found: re.Match[str]) -> str:
        path, fragment = found[1], found[2] or ""
        target = posixpath.normpath(posixpath.join("docs", here, path))
        if target.startswith("docs/"):
            inside = target.removeprefix("docs/")
            # A link to the folder of the decisions means the list of them.
            if files.get_file_from_path(f"{inside}/index.md") is not None:
                return posixpath.relpath(f"{inside}/index.md", here or ".") + fragment
            return found[0]
        if target in ELSEWHERE:
            return posixpath.relpath(ELSEWHERE[target], here or ".") + fragment
        if not (ROOT / target).exists():
            return found[0]  # reported as broken by the strict build
        kind = "tree" if (ROOT / target).is_dir() else "blob"
        return f"{config.repo_url.rstrip('/')}/{kind}/main/{target}{fragment}"

    return _outside_code(markdown, lambda text: LINK.sub(rewritten, text))


def _outside_code(markdown: str, change) -> str:  # type: ignore[no-untyped-def]
    pieces: list[str] = []
    end = 0
    for block in FENCE.finditer(markdown):
        pieces += [change(markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*pieces, change(markdown[end:])])


def _from_root(name: str) -> str:
    """Return a file of the root with its links as seen from its place on the site."""
    place = posixpath.dirname(ELSEWHERE[name])

    def moved(found: re.Match[str]) -> str:
        path = posixpath.relpath(found[1], posixpath.join("docs", place))
        return path + (found[2] or "")

    text = (ROOT / name).read_text(encoding="utf-8")
    return _outside_code(text, lambda part: LINK.sub(moved, part))


def _decisions() -> str:
    lines = [
        "# Decisions",
        "",
        "Each record names one decision, the reason, and the measurement behind it.",
        "",
    ]
    for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join([*lines, ""])
