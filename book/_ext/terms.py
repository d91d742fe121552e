"""Glossary terms link themselves: the first mention in each chapter leads to its definition.

The index leads back: under each term, the chapters that say it. A term's entry may name other
forms of the word: ``:forms: bursts, bursting`` as the last line of its definition (it is taken
out). Titles, links, code, tables, captions and exercises stay as they are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from docutils import nodes
from markupsafe import Markup
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

GLOSSARY = "book/appendix/glossary"
FORMS = re.compile(r"^ +:forms: *(.+)\n", re.MULTILINE)
FIRST = re.compile(r'id="first-([^"]+)"')
ENTRY = re.compile(r"^(\w.*)\n(?=  \S)", re.MULTILINE)
CLOSED = (
    nodes.title, nodes.reference, nodes.literal, nodes.literal_block, nodes.table, nodes.caption,
    nodes.abbreviation, nodes.math, nodes.figure, addnodes.pending_xref, nodes.rubric,
)  # fmt: skip


def entries(text: str) -> dict[str, list[str]]:
    """Every term of the glossary's source and the forms in which it may be met, itself first."""
    found = {}
    starts = [*ENTRY.finditer(text)]
    for start, stop in zip(starts, [*starts[1:], None], strict=True):
        body = text[start.end() : stop.start() if stop else None]
        forms = FORMS.search(body)
        others = [f.strip() for f in forms[1].split(",")] if forms else []
        found[start[1].strip()] = [start[1].strip(), *others]
    return found


def pattern(forms: dict[str, list[str]]) -> tuple[re.Pattern[str], dict[str, str]]:
    """One expression for all forms, the longest first, and which term each form means."""
    meant = {form.lower(): term for term, all_forms in forms.items() for form in all_forms}
    words = sorted(meant, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, words))})(?![\w-])", re.I), meant


class LinkTerms(SphinxPostTransform):
    """Replace the first mention of each term in a chapter by a link to its definition."""

    default_priority = 400

    def run(self, **kwargs: object) -> None:
        name = self.env.docname
        if name.count("/") != 2 or name.startswith("book/appendix/"):
            return
        found, meant = self.app.terms
        linked: set[str] = set()
        for text in [*self.document.findall(nodes.Text)]:
            up, node = [], text.parent
            while node is not None:
                up.append(node)
                node = node.parent
            if any(isinstance(n, CLOSED) for n in up) or not any(
                isinstance(n, nodes.paragraph) for n in up
            ):
                continue
            if any("exercise" in c or "solution" in c for n in up for c in n.get("classes", [])):
                continue
            parts, at = [], 0
            for m in found.finditer(text):
                term = meant[m[1].lower()]
                if term not in linked:
                    linked.add(term)
                    parts += [nodes.Text(text[at : m.start()]), self.link(term, m[1])]
                    at = m.end()
            if parts:
                text.parent.replace(text, [*parts, nodes.Text(text[at:])])

    def link(self, term: str, shown: str) -> nodes.reference:
        page, label = self.env.get_domain("std").objects["term", term]
        there = self.app.builder.get_relative_uri(self.env.docname, page)
        link = nodes.reference("", shown, internal=True, refuri=f"{there}#{label}")
        link["classes"].append("term")
        link["ids"].append(label.replace("term", "first", 1))
        return link


def read(app: Sphinx) -> None:
    source = Path(app.srcdir) / f"{GLOSSARY}.md"
    app.terms = pattern(entries(source.read_text(encoding="utf8")))


def hide_forms(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname == GLOSSARY:
        source[0] = FORMS.sub("", source[0])


def index(app: Sphinx, page: str, template: str, context: dict, doctree: object) -> None:
    """Each term's entry in the index names the chapters that say it; a number leads to the place.

    Read from the written pages, most of which a second build leaves alone.
    """
    if page != "genindex" or "genindexentries" not in context:
        return
    said: dict[str, list[Markup]] = defaultdict(list)
    numbers = {name: n[""] for name, n in app.env.toc_secnumbers.items() if n.get("")}
    for name, number in sorted(numbers.items(), key=lambda item: item[1]):
        there, title = app.builder.get_relative_uri(page, name), app.env.titles[name].astext()
        link = Markup('<a href="{}#first-{}" title="{}">{}</a>')
        written = Path(app.builder.get_outfilename(name)).read_text(encoding="utf8")
        for term in FIRST.findall(written):
            said[term].append(link.format(there, term, title, number[0]))
    for _, found in context["genindexentries"]:
        for _, (links, below, _) in found:
            for _, uri in links:
                if (term := uri.partition(f"{GLOSSARY}.html#term-")[2]) in said:
                    word = Markup("chapter " if len(said[term]) == 1 else "chapters ")
                    below.insert(0, (word + Markup(", ").join(said[term]), []))


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("builder-inited", read)
    app.connect("source-read", hide_forms)
    app.connect("html-page-context", index)
    app.add_post_transform(LinkTerms)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
