"""The page's code as it is given out: without comments, and otherwise what was written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from layerscope.errors import LayerscopeError
from layerscope.views import bundle
from layerscope.views.slim import slim_css, slim_js

UNITS = Path(__file__).parent / "web" / "units.test.mjs"
#: what all files of the page may weigh
MOST_BYTES = 150_000

JS = {
    "a comment leaves its lines": ("/**\n * @param {number} a\n */\nf(a);\n", "\n\n\nf(a);\n"),
    "a comment in a line": ("const a /* why */ = /** @type {number} */ (b); // so\n", "const a=(b);\n"),
    "words stay apart": ("return/**/a;", "return a;"),
    "indentation goes": ("if (a) {\n    b;\n\n  }\n", "if(a){\nb;\n\n}\n"),
    "a comment ends a statement": ("return /*\n*/ a", "return\na"),
    "signs stay apart": ("a + +b - -c ? .5 : d < !--e / /f/", "a+ +b- -c? .5:d< !--e/ /f/"),
    "arrows": ("(a, b) => a > b", "(a,b)=>a>b"),
    "strings": ("a = '/* no */' + \"// no  ; x\" + '\\'//';", "a='/* no */'+\"// no  ; x\"+'\\'//';"),
    "templates": ("a = `// no\n   ${b /* yes */ } /* no */`;", "a=`// no\n   ${b} /* no */`;"),
    "templates in templates": ("`${`// ${{ a: `/*` }.a}`}//`; // yes", "`${`// ${{a:`/*`}.a}`}//`;"),
    "braces in templates": ("`${{ a: 1 } /* yes */ .a}`", "`${{a:1}.a}`"),
    "a dollar is no place": ("`$ // ${a}$`// yes", "`$ // ${a}$`"),
    "regular expressions": ("a = /[/*]\\/*'/g; // yes", "a=/[/*]\\/*'/g;"),
    "after a bracket": ("f(/\" ; /, / '/); // yes", "f(/\" ; /,/ '/);"),
    "after return": ("return /`/; // yes", "return/`/;"),
    "division": ("a = (b) / c / d[0] / 2; // yes", "a=(b)/c/d[0]/2;"),
    "division of a name like a word": ("returned / a; b = 'x/'; // yes", "returned/a;b='x/';"),
    "division of a template": ("`a` / 2 // yes '", "`a`/2"),
    "nothing between a word and a sign": ("a = b * c !== d && !e || ! f ? g : h", "a=b*c!==d&&!e||!f?g:h"),
    "a number and a dot": ("1 .toFixed() + [... a, 2]", "1 .toFixed()+[... a,2]"),
    "words of the language": ("typeof - a in - b; async * c() {}", "typeof-a in-b;async*c(){}"),
    "private names": ("#a in b; c in #a", "#a in b;c in #a"),
    "nothing beside a string": ("case 'a': return `b` in 'c' + \"d\" in `e`", "case'a':return`b`in'c'+\"d\"in`e`"),
    "a word after a regular expression": ("/a/ in b / c", "/a/ in b/c"),
    "a regular expression after a word": ("a = typeof /b/ ? c / /d/ : e", "a=typeof/b/?c/ /d/:e"),
    "a comment is a blank": ("a + /* b */ +c /* d */ - /* e */ f", "a+ +c-f"),
    "a comment that would begin": ("a / /* why */ /b/ * c", "a/ /b/*c"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize("case", JS)
def test_comments_and_indentation_go_and_nothing_else(case):
    code, want = JS[case]
    assert slim_js(code) == want


@pytest.mark.parametrize("code", ["a = 'b", "a = `b", "a = `b${", "c = /[/"])
def test_what_cannot_be_read_is_an_error(code):
    if code == "a = `b${":
        code += "`"
    with pytest.raises(ValueError, match=r"^line 2: .* cannot be read$"):
        slim_js("\n" + code)


def test_a_module_that_cannot_be_read_is_named(monkeypatch):
    monkeypatch.setattr(bundle, "sources", lambda: {"a.js": "a = 'b"})
    with pytest.raises(LayerscopeError, match=r"^web/a\.js: line 1"):
        bundle.web_files()


def test_style_sheets():
    code = 'a {\n  /* why */\n  content: "/* no */  x"; /* b */\n}\nb :hover, #c { width: calc(1px / 2 + 3px) }\n'
    assert slim_css(code) == 'a{\n\ncontent:"/* no */  x";\n}\nb :hover,#c{width:calc(1px / 2 + 3px)}\n'


def test_the_page_is_small():
    files = bundle.web_files()
    assert len(files) > 20, "the page is there"
    assert sum(len(text.encode()) for text in files.values()) < MOST_BYTES


def test_every_line_stays_on_its_line_and_no_comment_is_left():
    written, given = bundle.sources(), bundle.web_files()
    assert list(written) == list(given)
    for name, data in given.items():
        assert data.count("\n") == written[name].count("\n"), name
        if name.endswith(".js"):
            assert not re.search(r"^\s*(//|\*|/\*)|/\*\*|@(param|returns|type)\b", data, re.M), name


PARSE = """
const { SourceTextModule } = require("node:vm"), { readFileSync } = require("node:fs");
const files = process.argv.slice(1);
for (const file of files) new SourceTextModule(readFileSync(file, "utf8"), { identifier: file });
console.log(files.length);"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs node to run the page's code")
def test_the_page_works_without_its_comments(tmp_path):
    for name, data in bundle.web_files().items():
        path = tmp_path / name
        path.write_text(data, "utf-8")
    modules = [str(path) for path in tmp_path.rglob("*.js")]
    done = subprocess.run(["node", "--experimental-vm-modules", "-e", PARSE, *modules], capture_output=True, text=True)
    assert done.stdout.strip() == str(len(modules)), done.stderr
    env = os.environ | {"LAYERSCOPE_WEB": f"{tmp_path.as_uri()}/"}
    done = subprocess.run(["node", "--test", str(UNITS)], capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(r"^# pass [1-9]\d", done.stdout, re.M), done.stdout[-500:]
