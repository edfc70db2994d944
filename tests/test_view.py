"""The viewer from the command line and from Python: `view`, `export --html`, a record in a notebook."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request

import pytest

import layerscope
from layerscope.views import html
from tests.browsing import small_record
from tests.test_html import Seen


@pytest.fixture
def saved(tmp_path):
    return small_record().save(tmp_path / "a.layerscope")


def test_view_prints_its_address_answers_and_is_interrupted(saved):
    command = [sys.executable, "-m", "layerscope", "view", str(saved), "--no-browser"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = running.stdout.readline().strip()
        opened = urllib.request.build_opener(urllib.request.HTTPCookieProcessor()).open(url)
        assert opened.url == url.partition("?")[0]
        opened.close()
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert (running.returncode, out, err.strip()) == (130, "", "layerscope: interrupted")


def test_view_of_nothing_fails_in_one_line(run, saved):
    ran = run("view", "gone.layerscope", "--no-browser")
    assert ran.code == 1
    assert "no such record" in ran.line
    assert run("view", "layerscope:alexnet", "gone.png", "--no-browser").code == 1
    assert run("view", saved, "photo.png", "--no-browser").code == 2
    assert run("view", saved, "--port", "70000").code == 2


def test_export_writes_one_file_and_says_what_it_left_out(run, saved, tmp_path):
    ran = run("export", saved, "--html", "deep/a.html")
    assert ran.code == 0
    assert ran.out.strip() == "deep/a.html"
    assert 'id="block-0-0"' in (tmp_path / "deep" / "a.html").read_text()
    ran = run("export", saved, "--html", "b.html", "--budget", "0.1")
    assert ran.code == 0
    assert run("export", saved, "--html", tmp_path).code == 2
    assert run("export", saved).code == 2


def test_a_record_writes_itself(tmp_path):
    path = small_record().to_html(tmp_path / "a.html")
    assert "a &lt;network&gt;" in path.read_text()
    with pytest.warns(UserWarning, match="maps are left out .* MB: layer;") as seen:
        small_record().to_html(path, budget_bytes=1)
    assert seen[0].filename == __file__


def test_a_record_in_a_notebook_survives_its_conversion(tmp_path):
    record = small_record()
    assert repr(record) == "<features of a <network>: 1 layer, 1 image>"
    data = {"text/html": record._repr_html_(), "text/plain": repr(record)}
    shown = {"output_type": "execute_result", "execution_count": 1, "metadata": {}, "data": data}
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "execution_count": 1, "source": "", "outputs": [shown]}
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    pytest.importorskip("nbconvert")
    script = f"from nbconvert import HTMLExporter as E; print(E().from_filename({str(path)!r})[0])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    frames = [attrs for tag, attrs in Seen(done.stdout).tags if tag == "iframe"]
    assert [frame["srcdoc"] for frame in frames] == [html.document(record)[0]], done.stderr[-500:]
    assert frames[0]["sandbox"] == "allow-scripts allow-downloads"


def test_a_loaded_record_shows_itself_without_torch(saved):
    script = (
        f"import sys, layerscope; record = layerscope.load({str(saved)!r}); print(len(record._repr_html_()))\n"
        "print([name for name in ('torch', 'numba') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[1] == "[]", done.stderr
    assert layerscope.load(saved)._repr_html_() == small_record()._repr_html_()


def test_view_takes_the_preprocessing_and_another_network(run, saved, monkeypatch, code):
    from layerscope import server

    seen = {}
    monkeypatch.setattr(server, "view", lambda what, images, *rest, **options: seen.update(options, what=what))
    assert (
        run("view", f"{code}:small", "--size", "64", "--mean", "0.5,0.4,0.3", "--against", "layerscope:alexnet").code
        == 0
    )
    assert seen["against"] == "layerscope:alexnet"
    network = seen["opener"](seen["what"])
    assert (network.preprocessing.resize, network.preprocessing.mean) == ((64, 64), (0.5, 0.4, 0.3))
    ran = run("view", saved, "--crop", "64")
    assert ran.code == 2
    assert "--crop" in ran.line
