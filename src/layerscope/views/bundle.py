"""The viewer's page: its files as the server gives them out, and as one document without any request.

The page's modules use relative static imports with named exports alone, and no two of them give the same name to
something at their top level. So one module is made of them by laying them end to end, imports first, with the import
lines and the word `export` left out: no bundler, and an error here rather than a blank page where a rule is broken.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files

from layerscope.errors import LayerscopeError
from layerscope.views.slim import slim_css, slim_js

__all__ = ["INDEX", "TYPES", "bundle", "inline", "sources", "web_files"]

INDEX = "index.html"
#: the kinds of file that the page is made of; nothing else is given out
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}

_IMPORT = re.compile(r"""^import\s+(?:\{([^}]*)\}\s*from\s*)?["']([^"']+)["'];?[^\S\n]*$""", re.M)
_EXPORT = re.compile(r"^export\s+(?=(?:async\s+)?function\b|const\b|let\b|class\b)", re.M)
_TOP = re.compile(r"^(?:export\s+)?(?:async\s+)?(?:function\*?|const|let|var|class)\s+([\w$]+)", re.M)
_LEFT = re.compile(r"^(?:import|export)\b.*$|\bimport\.meta\b", re.M)


def web_files() -> dict[str, str]:
    """The page's files by their name as they are given out, without comments."""
    return {name: _slim(name, text) for name, text in sources().items()}


def _slim(name: str, code: str) -> str:
    try:
        return slim_css(code) if name.endswith(".css") else slim_js(code) if name.endswith(".js") else code
    except ValueError as error:
        raise _broken(name, str(error)) from error


def sources() -> dict[str, str]:
    """The page's files as they were written."""
    folder = files("layerscope") / "web"
    return {item.name: item.read_text("utf-8") for item in folder.iterdir() if item.name.endswith(tuple(TYPES))}


def bundle(modules: Mapping[str, str], entry: str) -> str:
    """The modules that `entry` needs as one module, each after those that it imports.

    Raises LayerscopeError for a name that two of them declare, and for what cannot be laid end to end.
    """
    parts: dict[str, str] = {}
    owner: dict[str, str] = {}
    for name in list(_order(modules, entry, entry, set())):
        for declared in _TOP.findall(modules[name]):
            if declared in owner:
                raise _broken(name, f"{declared} is declared in {owner[declared]} too; rename one of them")
            owner[declared] = name
        text = _EXPORT.sub("", _IMPORT.sub("", modules[name]))
        if left := _LEFT.search(text):
            raise _broken(name, f"{left.group()!r} cannot be laid into one module")
        parts[name] = f"// {name}\n{text.strip()}\n"
    return "\n".join(parts.values())


def _order(modules: Mapping[str, str], name: str, importer: str, begun: set[str]) -> Iterator[str]:
    """Depth first, as the browser runs them; a circle is cut where it closes, as there."""
    if name not in modules:
        raise _broken(importer, f"imports {name}, which is not there")
    if name in begun:
        return
    begun.add(name)
    for names, target in _IMPORT.findall(modules[name]):
        if not target.startswith("./"):
            raise _broken(name, f"imports {target}; only relative paths can be laid into one module")
        if re.search(r"\bas\b", names):
            raise _broken(name, f"renames what it imports from {target}; use the name it has")
        yield from _order(modules, target[2:], name, begun)
    yield name


def _broken(name: str, what: str) -> LayerscopeError:
    return LayerscopeError(f"web/{name}: {what}; this is a fault of layerscope, please report it")


def inline(web: Mapping[str, str], data: str, title: str) -> str:
    """The page as one document: styles and code inside, `data` before the code, and a policy that forbids requests.

    `web`: the files as they were written; laid together they lose their comments. `data` is markup that holds no
    executable script; `title` is escaped already.
    """
    style = _slim("style.css", web["style.css"])
    code = _slim("main.js", bundle({name: text for name, text in web.items() if name.endswith(".js")}, "main.js"))
    # The end of a script, and the start of a comment that hides it, mean the same inside of a string literal.
    code = code.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    policy = (
        f"default-src 'none'; script-src {_digest(code)}; style-src {_digest(style)}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    charset = '<meta charset="utf-8">'
    page = web[INDEX]
    for tag, text in {
        charset: f'{charset}\n<meta http-equiv="Content-Security-Policy" content="{policy}">',
        "<title>layerscope</title>": f"<title>{title}</title>",
        '<link rel="stylesheet" href="/web/style.css">': f"<style>{style}</style>",
        '<script type="module" src="/web/main.js"></script>': "",
        "</body>": f'{data}\n<script type="module">{code}</script>\n</body>',
    }.items():
        before, place, after = page.partition(tag)
        if not place:
            raise _broken(INDEX, f"has no {tag}")
        page = before + text + after
    return page


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
