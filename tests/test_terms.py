"""book/_ext/terms.py: the glossary's terms and where they are met."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup, SoupStrainer

from tools import notebooks

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("terms", ROOT / "book" / "_ext" / "terms.py")
terms = importlib.util.module_from_spec(spec)
spec.loader.exec_module(terms)

TEXT = """# Glossary

```{glossary}
burst
  Two or more spikes.
  :forms: bursts, bursting

burst rate
  Bursts per second.
```
"""


def test_entries_are_terms_with_their_other_forms():
    assert terms.entries(TEXT) == {
        "burst": ["burst", "bursts", "bursting"],
        "burst rate": ["burst rate"],
    }


def test_the_longest_form_is_met_first_and_whole_words_only():
    found, meant = terms.pattern(terms.entries(TEXT))
    met = [m[1] for m in found.finditer("Burst rates outburst; a burst rate. Bursting! pre-burst")]
    assert met == ["Burst", "burst rate", "Bursting"]
    assert [meant[m.lower()] for m in met] == ["burst", "burst rate", "burst"]


def test_the_glossary_of_the_book_is_sound():
    """No form means two terms, and the order is that of the alphabet but for a pair by type."""
    found = terms.entries((ROOT / "book/appendix/glossary.md").read_text(encoding="utf8"))
    forms = [form.lower() for all_forms in found.values() for form in all_forms]
    assert len(found) >= 50 and len(forms) == len(set(forms))
    assert [*found] == sorted(found, key=str.lower)


def test_every_term_is_met_in_some_chapter():
    found, meant = terms.pattern(
        terms.entries((ROOT / "book/appendix/glossary.md").read_text(encoding="utf8"))
    )
    text = "\n".join(p.read_text(encoding="utf8") for p in ROOT.glob("book/_text/*/*.md"))
    met = {meant[m[1].lower()] for m in found.finditer(text)}
    assert met == set(meant.values()), set(meant.values()) - met


@pytest.mark.book
def test_a_page_links_each_term_once_where_it_is_first_said(site):
    """In the paragraphs of every built chapter; not in titles, code, tables or captions."""
    found, meant = terms.pattern(
        terms.entries((ROOT / "book/appendix/glossary.md").read_text(encoding="utf8"))
    )
    closed = ["h1", "h2", "h3", "h4", "pre", "code", "table", "figcaption", "figure", "a", "abbr"]
    aside = re.compile("exercise|solution|math|admonition-title|rubric")
    for name in notebooks.chapters():
        page = (site / "book" / f"{name}.html").read_text(encoding="utf8")
        page = re.sub("<pre>.*?</pre>", "", page, flags=re.DOTALL)  # 9 of 10 elements colour code
        article, said = BeautifulSoup(page, "html.parser", parse_only=SoupStrainer("article")), []
        for text in article.find_all(string=found):  # what holds a term; its parents cost time
            link = text.find_parent("a", class_="term")
            if link:
                assert text.find_parent(closed[:-2]) is None, (name, text)
                said.append(meant[text.lower()])
            elif text.find_parent("p") and not text.find_parent(closed):
                if text.find_parent(class_=aside) is None:
                    new = {meant[m[1].lower()] for m in found.finditer(text)} - set(said)
                    assert not new, f"{name}: {new} said before its link"
        assert len(said) == len(set(said)) > 5, name


@pytest.mark.book
def test_the_index_names_the_chapters_that_say_a_term_and_where(site):
    """Exactly those that link it, in their order, by the number in their title."""
    said, index = {}, BeautifulSoup((site / "genindex.html").read_text("utf8"), "html.parser")
    for name in notebooks.chapters():
        page = (site / "book" / f"{name}.html").read_text("utf8")
        page = BeautifulSoup(page, "html.parser", parse_only=SoupStrainer("a"))
        number = page.select_one("a.current.internal[href='#']").get_text().split(".")[0]
        for link in page.select("a.term"):
            there = f"book/{name}.html#{link['id']}"
            assert link["id"] == link["href"].split("#")[1].replace("term", "first", 1)
            said.setdefault(link["href"].split("#")[1], []).append((int(number), there))
    assert len(said) >= 50 and max(len(where) for where in said.values()) > 5
    for term, where in said.items():
        entry = index.select_one(f'a[href="book/appendix/glossary.html#{term}"]').parent
        found = [(int(a.string), a["href"]) for a in entry.select("a[title]")]
        assert found == sorted(where), term
