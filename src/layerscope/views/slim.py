"""The page's code without comments and indentation, as it is given out: they are for who works on it.

They make up a quarter of it. Every line stays on its line, so that what a browser reports is found in the source. No
minifier: names, statements and line ends are left as they are, only blanks that separate nothing go too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache

__all__ = ["slim_css", "slim_js"]

_TOKEN = re.compile(
    r"""(?P<gap>\s+|//[^\n]*|/\*.*?\*/)
    |(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    |(?P<word>[\w$]+)
    |(?P<sign>[^"'`])""",
    re.X | re.S,
)
_REGEX = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\[\n])+/\w*")
#: of a template, from one place where values are put in to the next
_PIECE = re.compile(r"[`}](?:\\.|\$(?!\{)|[^`\\$])*(?:`|\$\{)", re.S)
_CSS = re.compile(r"""(?P<gap>(?:\s+|/\*.*?\*/)+)|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^\s"'/]+|/""", re.S)
#: After these words a slash begins a regular expression; after others, and after a closing bracket, it divides.
_BEFORE_REGEX = re.compile("await|case|delete|do|else|in|new|of|return|throw|typeof|void|yield")


#: signs that are another sign, or a comment, without the blank between them
_APART = frozenset(["++", "--", "->", "//", "/*", "<!"])


@cache
def slim_js(code: str) -> str:
    """A module without comments and indentation. Raises ValueError for what cannot be read."""
    return _joined(_tokens(code), _apart)


@cache
def slim_css(code: str) -> str:
    """A style sheet without comments and indentation."""
    # A blank before a colon, between two selectors, has a meaning.
    tokens = ((match.lastgroup or "", match[0]) for match in _CSS.finditer(code))
    return _joined(tokens, lambda _, last, first: last not in "{},;:" and first not in "{},;")


def _joined(tokens: Iterable[tuple[str, str]], apart: Callable[[str, str, str], bool]) -> str:
    """The tokens with the line ends of each gap, or one blank where `apart` says so.

    It is given the kind of the token before, its last character and the first one of the token after.
    """
    out = [""]
    gap = before = ""
    for kind, text in tokens:
        if kind == "gap":
            gap += "\n" * text.count("\n") or " "
            continue
        blank = bool(gap and out[-1]) and apart(before, out[-1][-1], text[0])
        out += ["\n" * gap.count("\n") or " " * blank, text]
        gap, before = "", kind
    return "".join(out) + "\n" * gap.count("\n")


def _apart(kind: str, last: str, first: str) -> bool:
    """Whether the blank between two tokens of a module means something."""
    if kind == "regex":  # what follows it at once are its flags
        return first == "/" or _in_word(first)
    if first == ".":  # 1 .toFixed(), a ? .5 : b
        return _in_word(last) or last in "?."
    return (_in_word(last) and _in_word(first)) or last == "." or last + first in _APART


def _in_word(sign: str) -> bool:
    return sign.isalnum() or sign in "_$#"


def _tokens(code: str) -> Iterator[tuple[str, str]]:
    """What a module is made of: gap (blanks, comments), string, template, regex, word and sign."""
    at, before = 0, ""  # the last word or sign
    depths: list[int] = []  # of the templates that are open here: braces that are open since their ${
    while at < len(code):
        kind, match = "", None
        if code[at] == "`" or (code[at] == "}" and depths and not depths[-1]):
            kind, match = "template", _PIECE.match(code, at)
        elif code[at] == "/" and code[at + 1 : at + 2] not in ("/", "*") and _may_be_regex(before):
            kind, match = "regex", _REGEX.match(code, at)
        else:
            match = _TOKEN.match(code, at)
            kind = match.lastgroup or "" if match else ""
        if not match:
            raise ValueError(f"line {code.count(chr(10), 0, at) + 1}: {code[at : at + 40]!r} cannot be read")
        text = match[0]
        if kind == "template":
            if text[0] == "}":
                depths.pop()
            if text[-1] == "{":
                depths.append(0)
        elif kind == "sign" and depths:
            depths[-1] += (text == "{") - (text == "}")
        if kind != "gap":
            before = ")" if kind == "regex" else text
        yield kind, text
        at = match.end()


def _may_be_regex(before: str) -> bool:
    if re.fullmatch(r"[\w$]+", before):
        return bool(_BEFORE_REGEX.fullmatch(before))
    return not before or before[-1] not in ")]\"'`"
