"""tools.pdf without a browser: the contents, the links, what it says. Printing: test_site.py."""

from __future__ import annotations

import shutil
import sys

import pytest
import yaml
from conftest import ROOT

from tools import pdf


def test_the_contents_are_every_page_in_order():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    found = pdf.contents(toc)
    assert found[0] == ("", ["book/index"])
    assert [caption for caption, _ in found[1:]] == [p["caption"] for p in toc["parts"]]
    assert "book/backprop/credit" in found[1][1]
    assert not any("genindex" in files for _, files in found)


def test_without_a_browser_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "index.html").write_text("built")
    assert pdf.main([str(tmp_path / "out.pdf"), "--site", str(tmp_path)]) == 2
    words = capsys.readouterr().err
    assert "error: the PDF is printed by a browser, and none is here: expected chromium" in words
    assert not (tmp_path / "out.pdf").exists()


def test_without_pypdf_or_pages_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    assert pdf.main([str(tmp_path / "out.pdf"), "--site", str(tmp_path)]) == 2
    assert f"no built book in {tmp_path}: make site builds it" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pypdf", None)
    assert pdf.main([str(tmp_path / "out.pdf"), "--site", str(tmp_path)]) == 2
    assert "the package pypdf is missing: make .venv/.ready" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("link", "goal"),
    [
        ({"/Dest": "/three-factors"}, ("book/a/here", "three-factors")),
        ({"/A": {"/URI": "http://here/book/a/b.html#eq-%C3%A9"}}, ("book/a/b", "eq-é")),
        ({"/A": {"/URI": "http://here/book/a/b.html"}}, ("book/a/b", "")),
        ({"/A": {"/URI": "https://doi.org/10.1"}}, None),
    ],
)
def test_where_a_link_leads(link, goal):
    assert pdf._goal(link, "book/a/here", "http://here") == goal
