"""The whole book as one PDF: every built page printed by a browser, then joined by pypdf.

    make pdf        or, for the pages built already: python -m tools.pdf [OUT]

A cover, the contents with page numbers, a bookmark for each part, chapter and section. Links
between chapters lead within the file; links to what is not in it are taken out.
"""

from __future__ import annotations

import argparse
import functools
import html
import http.server
import io
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
OUT = ROOT / "_build" / "credit-assignment.pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAPER = {
    "format": "A4",
    "margin": {"top": "18mm", "bottom": "20mm", "left": "18mm", "right": "18mm"},
}

# a link to each place of the page makes the browser note where that place is printed
PLACES = """() => {
  for (const e of document.querySelectorAll('article [id]'))
    document.body.append(Object.assign(document.createElement('a'), {href: '#' + e.id}));
  const text = e => { const c = e.cloneNode(true);
    c.querySelectorAll('.headerlink').forEach(x => x.remove()); return c.textContent.trim() };
  return {title: text(document.querySelector('article h1')),
    sections: [...document.querySelectorAll('article section > h2')]
      .map(e => [text(e), e.parentElement.id])}; }"""


@dataclass
class Printed:
    """One page of the site on paper: its address, title and sections (title, anchor)."""

    path: str
    pdf: bytes
    title: str
    sections: list[tuple[str, str]] = field(default_factory=list)


def contents(toc: dict) -> list[tuple[str, list[str]]]:
    """The parts of a _toc.yml, each with its pages; the first page stands alone, without a name.

    The index stays out: it knows no page numbers.
    """
    files = [[c["file"] for c in p["chapters"] if c["file"] != "genindex"] for p in toc["parts"]]
    parts = [(p["caption"], f) for p, f in zip(toc["parts"], files, strict=True)]
    return [("", [toc["root"]]), *parts]


def found_browser() -> str:
    """Where Chromium is; FileNotFoundError saying what to install where it is not."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise FileNotFoundError(
            f"the PDF is printed by a browser, and none is here: expected {', '.join(BROWSERS)}; "
            "install one (Debian: apt-get install chromium) and run make pdf again"
        )
    return found


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server for a folder, on this machine only."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=folder)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def printed(page: Any, base: str, path: str) -> Printed:
    """Print a page of the site once its mathematics stands. ``page``: playwright's."""
    page.goto(f"{base}/{path}.html", wait_until="load")
    page.evaluate("() => window.MathJax?.startup?.promise?.then(() => 1)")
    page.evaluate("() => document.fonts.ready.then(() => 1)")
    about = page.evaluate(PLACES)
    pdf = page.pdf(**PAPER, print_background=True)
    return Printed(path, pdf, about["title"], [tuple(s) for s in about["sections"]])


def front(page: Any, base: str, title: str, author: str, rows: Sequence[tuple]) -> Printed:
    """Cover and contents. ``rows``: (part, "", 0) or (title, path, page number)."""
    lines = "".join(
        f'<tr><td><a href="{base}/{path}.html">{html.escape(name)}</a></td><td>{n}</td></tr>'
        if path
        else f"<tr><th colspan=2>{html.escape(name)}</th></tr>"
        for name, path, n in rows
    )
    page.set_content(
        "<style>body{font-family:sans-serif;font-size:11pt} h1{margin-top:80mm;font-size:34pt}"
        "h2{break-before:page} table{width:100%;border-collapse:collapse} a{color:inherit;"
        "text-decoration:none} th{text-align:left;padding-top:1em} td{padding:2pt 0}"
        "td+td{text-align:right;vertical-align:top} tr{break-inside:avoid}</style>"
        f"<h1>{html.escape(title)}</h1><p>{html.escape(author)}</p><h2>Contents</h2>"
        f"<table>{lines}</table>"
    )
    return Printed("", page.pdf(**PAPER), title)


def join(front_matter: Printed, parts: Sequence[tuple[str, list[Printed]]], base: str) -> Any:
    """One pypdf writer of all pages: bookmarks, page numbers, links that stay inside."""
    from pypdf import PdfReader, PdfWriter
    from pypdf.generic import ArrayObject, FloatObject, NameObject, NullObject

    writer, places, owner = PdfWriter(), {}, []
    for one in [front_matter, *(p for _, pages in parts for p in pages)]:
        reader, first = PdfReader(io.BytesIO(one.pdf)), len(writer.pages)
        places[one.path, ""] = first, None
        for name, place in reader.named_destinations.items():
            n = reader.get_destination_page_number(place)
            top = None if place.top is None or isinstance(place.top, NullObject) else place.top
            places[one.path, unquote(name.lstrip("/"))] = first + n, top
        for sheet in reader.pages:
            writer.add_page(sheet)
            owner.append(one.path)
    mark = writer.add_outline_item
    for caption, pages in parts:
        above = caption and mark(title=caption, page_number=places[pages[0].path, ""][0])
        for one in pages:
            start = places[one.path, ""]
            at = mark(title=one.title, page_number=start[0], parent=above or None)
            for name, anchor in one.sections:
                n = places.get((one.path, anchor), start)[0]
                mark(title=name, page_number=n, parent=at)
    for i, sheet in enumerate(writer.pages):
        kept = ArrayObject()
        for link in sheet.get("/Annots", []):
            goal = _goal(link.get_object(), owner[i], base)
            if goal is not None:
                n, top = places.get(goal) or places.get((goal[0], ""), (None, None))
                if n is None:
                    continue  # it leads to what is not in this file
                spot = [writer.pages[n].indirect_reference, NameObject("/XYZ"), NullObject()]
                spot += [NullObject() if top is None else FloatObject(top), NullObject()]
                link.get_object().pop("/A", None)
                link.get_object()[NameObject("/Dest")] = ArrayObject(spot)
            kept.append(link)
        sheet[NameObject("/Annots")] = kept
        if i:
            _number(writer, sheet, i + 1)
    return writer


def _goal(link: Any, path: str, base: str) -> tuple[str, str] | None:
    """Where a link leads, as (path, anchor); None for an address outside the site."""
    if "/Dest" in link:
        return path, unquote(str(link["/Dest"]).lstrip("/"))
    uri = str(link.get("/A", {}).get("/URI", ""))
    if not uri.startswith(base):
        return None
    u = urlsplit(uri)
    return unquote(u.path).strip("/").removesuffix(".html"), unquote(u.fragment)


def _number(writer: Any, sheet: Any, n: int) -> None:
    """Print a page number in the middle of the lower margin."""
    from pypdf.generic import ArrayObject, DecodedStreamObject, DictionaryObject, NameObject

    kind = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    font = DictionaryObject({NameObject(k): NameObject(v) for k, v in kind.items()})
    fonts = sheet["/Resources"].get_object().setdefault(NameObject("/Font"), DictionaryObject())
    fonts.get_object()[NameObject("/FNumber")] = font
    x = float(sheet.mediabox.width) / 2 - 2.3 * len(str(n))
    before, after = DecodedStreamObject(), DecodedStreamObject()
    before.set_data(b"q\n")
    after.set_data(f"\nQ q BT /FNumber 8 Tf {x:.1f} 28 Td ({n}) Tj ET Q".encode())
    old = sheet["/Contents"]
    old = list(old) if isinstance(old, ArrayObject) else [sheet.raw_get("/Contents")]
    ends = [writer._add_object(s) for s in (before, after)]
    sheet[NameObject("/Contents")] = ArrayObject([ends[0], *old, ends[1]])


def book(
    site: Path, toc: dict, title: str, author: str, browser: Any, *, progress: bool = False
) -> Any:
    """Print the pages of a contents file from a built site and join them."""
    from pypdf import PdfReader
    from tqdm import tqdm

    with served(site) as base:
        page = browser.new_page()
        page.set_default_timeout(120_000)  # on a busy machine
        page.emulate_media(media="print", color_scheme="light")
        bar = tqdm(total=sum(len(files) for _, files in contents(toc)), disable=not progress)
        parts = []
        for caption, files in contents(toc):
            parts.append((caption, []))
            for path in files:
                parts[-1][1].append(printed(page, base, path))
                bar.update()
        bar.close()
        cover = front(page, base, title, author, [])
        for _ in range(2):  # how long the contents are is known once they are printed
            n, rows = len(PdfReader(io.BytesIO(cover.pdf)).pages) + 1, []
            for caption, pages in parts:
                rows += [(caption, "", 0)] if caption else []
                for one in pages:
                    rows.append((one.title, one.path, n))
                    n += len(PdfReader(io.BytesIO(one.pdf)).pages)
            cover = front(page, base, title, author, rows)
        page.close()
        writer = join(cover, parts, base)
    writer.add_metadata({"/Title": title, "/Author": author})
    return writer


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.pdf", description=__doc__.split("\n")[0])
    parser.add_argument("out", nargs="?", type=Path, default=OUT)
    parser.add_argument("--site", type=Path, default=HTML, help="the built pages")
    a = parser.parse_args(arguments)
    try:
        from playwright.sync_api import sync_playwright
        from pypdf import PdfWriter  # noqa: F401

        if not (a.site / "book" / "index.html").is_file():
            raise FileNotFoundError(f"no built book in {a.site}: make site builds it")
        config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))
        toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))
        where = found_browser()
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=where, args=ARGS)
            made = book(a.site, toc, config["title"], config["author"], browser, progress=True)
            browser.close()
    except ModuleNotFoundError as e:
        print(f"error: the package {e.name} is missing: make .venv/.ready", file=sys.stderr)
        return 2
    except OSError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    part = a.out.with_name(a.out.name + ".part")
    made.write(part)
    part.replace(a.out)
    print(f"{len(made.pages)} pages: {a.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
