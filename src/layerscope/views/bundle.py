"""The viewer's page: its files as the server gives them out, and as one document without any request.

The page's modules use relative static imports with named exports alone, and no two of them give the same name to
something at their top level. So one module is made of them by laying them end to end, imports first, with the import
lines and the word `export` left out: no bundler, and an error here rather than a blank page where a rule is broken.
"""

from __future__ import annotations

import base64
import hashlib
import posixpath
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files

from layerscope.errors import LayerscopeError
from layerscope.views.slim import slim_css, slim_js

__all__ = ["INDEX", "TYPES", "bundle", "inline", "sources", "web_files"]

INDEX = "index.html"
#: the kinds of file that the page is made of; nothing else is given out
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}

_PLACEHOLDER = "<!doctype html><meta charset=utf-8><title>layerscope</title><p>The page is missing from this package."

_IMPORT = re.compile(r"""^import\s+(?:\{([^}]*)\}\s*from\s*)?["']([^"']+)["'];?[^\S\n]*$""", re.M)
_EXPORT = re.compile(r"^export\s+(?=(?:async\s+)?function\b|const\b|let\b|class\b)", re.M)
_LIST = re.compile(r"^export\s*\{[^}]*\};?[^\S\n]*$", re.M)
_TOP = re.compile(r"^(?:export\s+)?(?:async\s+)?(?:function\*?|const|let|var|class)\s+([\w$]+)", re.M)
_LEFT = re.compile(r"^(?:import|export)\b.*$|\bimport\.meta\b", re.M)
_STYLE = re.compile(r"""<link\b[^>]*\brel=["']?stylesheet\b[^>]*>""")
_SCRIPT = re.compile(r"""<script\b[^>]*\bsrc=["']?[^>]*>\s*</script>""")
_OTHER = re.compile(r"""<link\b(?![^>]*\bhref=["']?data:)[^>]*\brel=["']?(?:icon|modulepreload|manifest)\b[^>]*>\s*""")
_TARGET = re.compile(r"""\b(?:href|src)=["']?([^"'\s>]+)""")


def web_files() -> dict[str, bytes]:
    """The page's files by their path below `web/` as they are given out, without comments."""
    return {
        name: _slim(name, data.decode()).encode() if name.endswith((".js", ".css")) else data
        for name, data in sources().items()
    }


def _slim(name: str, code: str) -> str:
    try:
        return slim_css(code) if name.endswith(".css") else slim_js(code)
    except ValueError as error:
        raise _broken(name, str(error)) from error


def sources() -> dict[str, bytes]:
    """The page's files as they were written; a placeholder where the package comes without them."""

    def below(folder: object, prefix: str) -> Iterator[tuple[str, bytes]]:
        for item in folder.iterdir():  # type: ignore[attr-defined]
            if item.is_dir():
                yield from below(item, f"{prefix}{item.name}/")
            elif posixpath.splitext(item.name)[1] in TYPES:
                yield prefix + item.name, item.read_bytes()

    root = files("layerscope") / "web"
    found = dict(below(root, "")) if root.is_dir() else {}
    return {INDEX: _PLACEHOLDER.encode()} | found


def bundle(modules: Mapping[str, str], entry: str) -> str:
    """The modules that `entry` needs as one module, each after those that it imports.

    Raises LayerscopeError for a name that two of them declare, and for what cannot be laid end to end.
    """
    parts: dict[str, str] = {}
    owner: dict[str, str] = {}
    for name in _order(modules, entry):
        for declared in _TOP.findall(modules[name]):
            if declared in owner:
                raise _broken(name, f"{declared} is declared in {owner[declared]} too; rename one of them")
            owner[declared] = name
        text = _LIST.sub("", _EXPORT.sub("", _IMPORT.sub("", modules[name])))
        left = _LEFT.search(text)
        if left:
            raise _broken(name, f"{left.group()!r} cannot be laid into one module")
        parts[name] = f"// {name}\n{text.strip()}\n"
    return "\n".join(parts.values())


def _order(modules: Mapping[str, str], entry: str) -> list[str]:
    """Depth first, as the browser runs them; a circle is cut where it closes, as there."""
    done: list[str] = []
    seen: set[str] = set()

    def visit(name: str, asked: str) -> None:
        if name not in modules:
            raise _broken(asked, f"imports {name}, which is not there")
        if name in seen:
            return
        seen.add(name)
        for names, target in _IMPORT.findall(modules[name]):
            if not target.startswith("."):
                raise _broken(name, f"imports {target}; only relative paths can be laid into one module")
            if re.search(r"\bas\b", names):
                raise _broken(name, f"renames what it imports from {target}; use the name it has")
            visit(posixpath.normpath(posixpath.join(posixpath.dirname(name), target)), name)
        done.append(name)

    visit(entry, entry)
    return done


def _broken(name: str, what: str) -> LayerscopeError:
    return LayerscopeError(f"web/{name}: {what}; this is a fault of layerscope, please report it")


def inline(web: Mapping[str, bytes], data: str, title: str) -> str:
    """The page as one document: styles and code inside, `data` before the code, and a policy that forbids requests.

    `web`: the files as they were written; laid together they lose their comments. `data` is markup that holds no
    executable script; `title` is escaped already.
    """
    texts = {name: content.decode() for name, content in web.items()}
    page = _OTHER.sub("", texts[INDEX])
    sources: dict[str, list[str]] = {"script": [], "style": []}

    def kept(kind: str, text: str) -> str:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        sources[kind].append(f"'sha256-{digest}'")
        return text

    def style(found: re.Match[str]) -> str:
        name = _path(found.group())
        return f"<style>{kept('style', _slim(name, texts[name]))}</style>"

    code: list[str] = []

    def script(found: re.Match[str]) -> str:
        modules = {name: text for name, text in texts.items() if name.endswith(".js")}
        name = _path(found.group())
        text = _slim(name, bundle(modules, name))
        # The end of a script, and the start of a comment that hides it, mean the same inside of a string literal.
        text = text.replace("</script", "<\\/script").replace("<!--", "<\\!--")
        code.append(f'<script type="module">{kept("script", text)}</script>')
        return ""

    page = _SCRIPT.sub(script, _STYLE.sub(style, page))
    page = re.sub(r"<title>[^<]*</title>", lambda _: f"<title>{title}</title>", page, count=1)
    policy = (
        f"default-src 'none'; script-src {' '.join(sources['script']) or chr(39) + 'none' + chr(39)}; "
        f"style-src {' '.join(sources['style']) or chr(39) + 'none' + chr(39)}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    head = f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">'
    page = re.sub(r"<meta\s+charset=[^>]*>", lambda _: head, page, count=1)
    at = page.rfind("</body>")
    tail = f"{data}\n" + "\n".join(code) + "\n"
    return page + tail if at < 0 else page[:at] + tail + page[at:]


def _path(tag: str) -> str:
    target = _TARGET.search(tag)
    assert target
    return posixpath.normpath(target.group(1).lstrip("/")).removeprefix("web/")
