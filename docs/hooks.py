"""What mkdocs does not do by itself: pages of files that lie outside of docs/, and the links that lead to them.

README, changelog and notices stay where people and packages look for them; a copy in docs/ would rot.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
#: a file of the repository -> its page of the site
PAGES = {
    "README.md": "index.md",
    "README.zh.md": "zh/index.md",
    "CHANGELOG.md": "changelog.md",
    "NOTICES.md": "notices.md",
}
_SOURCES = {page: source for source, page in PAGES.items()}
_LINK = re.compile(r"(\]\()([^)#\s:]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages whose files lie outside of docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links between files of the repository as links between pages of the site."""
    here = page.file.src_uri
    source = _SOURCES.get(here, f"docs/{here}")

    def moved(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[2]))
        on_site = PAGES.get(target, target.removeprefix("docs/") if target.startswith("docs/") else "")
        # What is no part of the site is left as it is, and the strict build names it.
        link = posixpath.relpath(on_site, posixpath.dirname(here)) if on_site else found[2]
        return f"{found[1]}{link}{found[3]}"

    return _LINK.sub(moved, markdown)
