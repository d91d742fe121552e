"""The built book: its links, what it loads, and how it behaves in a browser."""

from __future__ import annotations

import functools
import gzip
import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import axe_playwright_python
import pytest
import yaml
from conftest import ROOT
from pypdf import PdfReader

from tools import pdf

pytestmark = pytest.mark.book

# an unknown macro is not an mjx-merror: MathJax shows its name in red
MATH_ERRORS = "mjx-merror, [data-mjx-error], mjx-mtext[style*='red']"

# The worst contrast of a text that can be seen in the article with what is behind it (WCAG 2
# formula). Leaves in window.styles[theme] one element, the smallest, for each way a text is set:
# its colour and font, the backgrounds, opacity and position of all it is in, and for a link how
# the text around it is set.
CONTRAST = """() => {
  const light = c => { const v = c.map(x => { x /= 255;
    return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4 });
    return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2] };
  const rgb = s => s.match(/[\\d.]+/g).map(Number);
  const behind = e => { for (; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0.5) return c }
    return [255, 255, 255] };
  const known = new Map(), out = [], styles = new Map();
  const around = e => { if (!e) return '';
    if (!known.has(e)) { const s = getComputedStyle(e);
      const own = [s.backgroundColor, s.backgroundImage, s.opacity, s.position, s.filter].join();
      known.set(e, around(e.parentElement) + (own === PLAIN ? '' : own)) }
    return known.get(e) };
  const PLAIN = 'rgba(0, 0, 0, 0),none,1,static,none';
  const paint = e => { const s = getComputedStyle(e); return [s.color, s.fontWeight] };
  const size = e => e.getElementsByTagName('*').length;
  for (const e of document.querySelectorAll('article *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    if (!e.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const s = getComputedStyle(e), back = behind(e), [a, b] = [light(rgb(s.color)), light(back)];
    out.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.textContent.slice(0, 40)]);
    const link = e.closest('a'), whole = link ?? e;
    const set = [s.color, s.fontSize, s.fontWeight, s.textShadow, back, around(e),
      link && [getComputedStyle(link).textDecorationLine, paint(link.parentElement)]].join();
    if (!styles.has(set) || size(whole) < size(styles.get(set))) styles.set(set, whole) }
  window.styles = {...window.styles,
    [document.documentElement.dataset.theme]: [...styles.values()]};
  return out.sort((p, q) => p[0] - q[0])[0] }"""


class Page(HTMLParser):
    """The anchors, links and loaded files of one HTML page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.links, self.loads, self.pictures = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if a.get("id"):
            self.ids.add(a["id"])
        if tag == "a" and a.get("href"):
            self.links.append(a["href"])
        if tag == "img":
            self.pictures.append(a)
        rel = (a.get("rel") or "").split()
        if tag in {"script", "img", "iframe", "source", "video"} and a.get("src"):
            self.loads.append(a["src"])
        if tag == "link" and a.get("href") and {"stylesheet", "preload", "icon"} & set(rel):
            self.loads.append(a["href"])


@pytest.fixture(scope="module")
def pages(site):
    return {
        p: Page(p.read_text(encoding="utf8"))
        for p in site.rglob("*.html")
        if "_static" not in p.parts and "_sources" not in p.parts
    }


def toc_files() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]


def test_every_page_of_the_contents_is_there_and_whole(site):
    built = {p.relative_to(site).with_suffix("").as_posix() for p in site.glob("book/**/*.html")}
    assert built | {"genindex"} == set(toc_files())
    for file in toc_files():
        text = (site / f"{file}.html").read_text(encoding="utf8")
        assert "Traceback (most recent call last)" not in text, file


def test_internal_links(site, pages):
    bad = []
    for path, page in pages.items():
        for href in page.links + page.loads:
            u = urlsplit(href)
            if u.scheme or u.netloc:
                continue
            target = (path.parent / unquote(u.path)).resolve() if u.path else path
            if not target.exists():
                bad.append((path.relative_to(site).as_posix(), href))
            elif u.fragment and target in pages and unquote(u.fragment) not in pages[target].ids:
                bad.append((path.relative_to(site).as_posix(), href))
    assert bad == []


def test_nothing_is_loaded_from_outside(pages):
    assert {(p.name, s) for p, page in pages.items() for s in page.loads if urlsplit(s).netloc} == (
        set()
    )


def test_no_cdn_is_named(site):
    cdn = re.compile(r"cdn\.|unpkg|jsdelivr|cdnjs|polyfill\.io|googleapis")
    bad = [
        p.name
        for p in site.rglob("*.html")
        if "_static" not in p.parts and cdn.search(p.read_text(encoding="utf8"))
    ]
    assert bad == []


def test_every_picture_has_alt_text(site, pages):
    bad = [
        (p.relative_to(site).as_posix(), img.get("src"))
        for p, page in pages.items()
        for img in page.pictures
        if not (img.get("alt") or "").strip() or img["alt"].startswith("../")
    ]
    assert bad == []


def test_alt_text_of_a_chapter_s_figures_says_what_they_show(site, pages):
    """A sentence or more, of its own, not the caption again."""
    for p, page in pages.items():
        rel = p.relative_to(site).as_posix()
        alts = [img["alt"] for img in page.pictures if "_images/" in img.get("src", "")]
        assert len(set(alts)) == len(alts), (rel, "two figures with one text")
        assert [a for a in alts if len(a.split()) < 20] == [], rel


def test_a_chapter_offers_to_run_edit_and_report(site):
    text = (site / "book/backprop/credit.html").read_text(encoding="utf8")
    assert re.search(r'href="https://mybinder\.org/[^"]*credit\.ipynb"', text)
    assert re.search(r'href="[^"]*/edit/main/book/_text/backprop/credit\.md"', text)
    assert re.search(r'href="[^"]*/issues/new', text)
    assert re.search(r'href="[^"]*credit\.ipynb"[^>]*download|download[^>]*credit\.ipynb', text)


def open_page(browser, base, path, **kw):
    """Open a page with every outside request refused and every complaint written down."""
    page = browser.new_context(**kw).new_page()
    page.set_default_timeout(120_000)  # on a busy machine
    page.outside, page.errs, page.seen = [], [], set()

    def gate(route):
        if route.request.url.startswith((base, "data:", "blob:")):
            route.continue_()
        else:
            page.outside.append(route.request.url)
            route.abort()

    page.route("**/*", gate)
    page.on("pageerror", lambda e: page.errs.append(str(e)))
    page.on("console", lambda m: page.errs.append(m.text) if m.type == "error" else None)
    page.on("response", lambda r: page.errs.append(r.url) if r.status >= 400 else None)
    page.on("response", lambda r: page.seen.add(r.url))
    page.goto(f"{base}/{path}", wait_until="load")
    page.evaluate("() => window.MathJax?.startup?.promise?.then(() => 1)")
    return page


# Left out of a rule of axe-core: the elements inside these; every other is held to every rule.
EXEMPT = {
    "aria-allowed-role": ".citation-list",  # docutils marks each work as doc-biblioentry,
    "aria-deprecated-role": ".citation-list",  # a role that ARIA has given up,
    "aria-required-children": ".citation-list",  # inside a list that wants listitem
    "empty-table-header": "table",  # the corner above the names of rows: there is nothing to say
}
AXE = """([where, options, exempt]) => axe.run(
    where || {include: styles[document.documentElement.dataset.theme]},
    {resultTypes: ['violations'], preload: false, ...options}
  ).then(r => r.violations.flatMap(v => v.nodes
    .filter(n => !(exempt[v.id] && document.querySelector(n.target[0])?.closest(exempt[v.id])))
    .map(n => [v.id, n.html.slice(0, 160)]).slice(0, 3)))"""
# axe-core looks at colours one word after the other, half a minute a page: of each style one.
COLOURS = [None, {"runOnly": ["color-contrast", "link-in-text-block"]}, EXEMPT]
SCROLLS = ["article", {"runOnly": ["scrollable-region-focusable"]}, EXEMPT]
APART = [*COLOURS[1]["runOnly"], *SCROLLS[1]["runOnly"]]
OTHERS = ["article", {"rules": {rule: {"enabled": False} for rule in APART}}, EXEMPT]
OPEN = """() => { for (const e of document.querySelectorAll('article details')) e.open = true;
  document.querySelectorAll('article .toggle-hidden > .admonition-title')
    .forEach(e => e.click()) }"""
STILL = "*, *::before, *::after { transition: none !important }"  # colours are there at once
# Nine in ten elements of a page colour words of code or are strokes of a formula, which readers of
# the screen are not told: every look at the page goes through all of them. Formulas become boxes
# of their size (what is read out stays); code becomes plain, but where its colours are looked at.
SIMPLE = """colours => { const maths = [...document.querySelectorAll('article mjx-math')];
  const sizes = maths.map(e => e.getBoundingClientRect());
  maths.forEach((e, i) => { const box = document.createElement('span');
    box.style.cssText = `display: inline-block; width: ${sizes[i].width}px; ` +
      `height: ${sizes[i].height}px`;
    e.replaceWith(box) });
  const kept = colours ? Object.values(window.styles).flat() : [];
  for (const e of document.querySelectorAll('article pre'))
    if (!e.querySelector('a') && !kept.some(k => e.contains(k))) e.textContent = e.textContent }"""
PAPER = 658  # pixels between the margins of an A4 sheet
FIRST, WHOLE = 1_000_000, 1_500_000  # bytes a page loads: without and with the shared fonts


@functools.cache
def transferred(path: Path) -> int:
    """The bytes of a file as GitHub Pages sends it: text compressed, pictures and fonts as are."""
    content = path.read_bytes()
    text = path.suffix in {".html", ".js", ".css", ".svg", ".json"}
    return len(gzip.compress(content, 6)) if text else len(content)


def problems(page, site: Path, base: str, axe: str) -> Iterator[tuple]:
    """What is wrong with an open page: 1280 and 380 px wide, on paper, light and dark."""
    if page.outside or page.errs:
        yield "asks for and complains about", page.outside, page.errs
    if page.locator(MATH_ERRORS).count():
        yield "has maths that does not render", page.locator(MATH_ERRORS).first.inner_text()
    if page.locator("mjx-container").count() < page.locator(".math").count():
        yield ("has maths that is left as text",)
    files = {site / urlsplit(url).path.lstrip("/") for url in page.seen if url.startswith(base)}
    fonts = sum(transferred(f) for f in files if f.suffix in {".woff", ".woff2"})
    whole = sum(map(transferred, files))
    if whole - fonts > FIRST or whole > WHOLE:
        heavy = sorted((transferred(f), f.name) for f in files)[-4:]
        yield "weighs too much", whole - fonts, whole, heavy
    page.evaluate(axe)
    page.evaluate(OPEN)  # what is folded is held to the same
    page.add_style_tag(content=STILL)
    for media, width in (("print", PAPER), ("screen", 380), ("screen", 1280)):
        page.emulate_media(media=media)
        page.set_viewport_size({"width": width, "height": 900})
        over = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        if over > 0:  # on paper: it would be printed small
            yield "is too wide by", over, "px on", media, "at", width
    for scheme in ("light", "dark"):
        theme(page, scheme)
        worst = page.evaluate(CONTRAST)
        if worst is not None and worst[0] < 4.5:
            yield scheme, "is hard to read", worst
    page.evaluate(SIMPLE, True)
    for scheme in ("dark", "light"):
        theme(page, scheme)
        for found in page.evaluate(AXE, COLOURS):
            yield scheme, "axe", *found
    page.evaluate(SIMPLE, False)
    for found in page.evaluate(AXE, OTHERS):
        yield "axe", *found
    for width in (1280, 380):
        page.set_viewport_size({"width": width, "height": 900})
        yield from unreachable(page)


def theme(page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function("s => document.documentElement.dataset.theme === s", arg=scheme)


def unreachable(page) -> Iterator[tuple]:
    """What scrolls and no key gets to; the theme gives such cells their tab stop a while later."""
    for wait in (0, 300, 1500):
        page.wait_for_timeout(wait)
        if not (left := page.evaluate(AXE, SCROLLS)):
            return
    for found in left:
        yield f"at {page.viewport_size['width']} px", "axe", *found


@pytest.mark.browser
@pytest.mark.parametrize("file", toc_files())
def test_a_page_in_a_browser(browser, base, site, file):
    axe = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()
    size = {"width": 1280, "height": 900}
    page = open_page(browser, base, f"{file}.html", viewport=size, color_scheme="light")
    found = list(problems(page, site, base, axe))
    page.context.close()
    assert not found, "\n".join(map(str, found))


@pytest.mark.browser
def test_search_finds_coherence(browser, base):
    page = open_page(browser, base, "search.html?q=coherence")
    page.wait_for_selector("#search-results li", timeout=10_000)
    assert page.locator("#search-results li").count() >= 1
    assert page.outside == []
    page.context.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 380])
def test_the_figure_with_two_sliders(browser, base, site, width):
    page = open_page(
        browser, base, "book/bursts/neuron.html", viewport={"width": width, "height": 900}
    )
    assert page.errs == [] and page.outside == []
    figure = page.locator(".explorer")
    assert figure.count() == 1
    titles = figure.locator(".panel .title strong")
    for slider, panel in zip(figure.locator("input").all(), (0, 1), strict=True):
        slider.focus()
        page.keyboard.press("Home")
        low = float(titles.nth(panel).inner_text().split(":")[1].split()[0])
        ticks = figure.locator("path.burst").get_attribute("d")
        page.keyboard.press("End")
        high = float(titles.nth(panel).inner_text().split(":")[1].split()[0])
        assert high > low, (panel, low, high)
        assert figure.locator("path.burst").get_attribute("d") != ticks
        assert (
            slider.get_attribute("aria-valuetext").split()[0] in slider.locator("..").inner_text()
        )
    box = figure.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    page.context.close()


@pytest.mark.browser
def test_the_keyboard_reaches_and_works_every_control(browser, base):
    page = open_page(browser, base, "book/bursts/neuron.html", color_scheme="light")
    skipped = """() => [...document.querySelectorAll('article :is(a[href], button, input, summary)')
      ].filter(e => e.tabIndex < 0 && !e.closest('details:not([open]) > :not(summary)'))
      .map(e => e.outerHTML.slice(0, 90))"""
    assert page.evaluate(skipped) == []
    fold = page.locator("article details.hide").first
    fold.locator("summary").focus()
    page.keyboard.press("Enter")
    assert fold.get_attribute("open") is not None
    theme = page.locator("button.theme-switch-button").first
    mode = page.evaluate("() => document.documentElement.dataset.mode")
    theme.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.documentElement.dataset.mode") != mode
    page.context.close()


@pytest.mark.browser
def test_the_keyboard_opens_and_closes_a_solution(browser, base):
    """What stands in it, that is; its title is there to be seen all the time."""
    page = open_page(browser, base, "book/bursts/neuron.html", color_scheme="light")
    solution = page.locator(".solution").nth(1)
    text = solution.locator(":scope > :not(.admonition-title) p").first
    in_button = "e => e.contains(document.activeElement) && document.activeElement.tagName"
    page.locator(".exercise").nth(1).evaluate(
        "e => { e.tabIndex = -1; e.focus(); e.removeAttribute('tabindex') }"
    )
    for _ in range(30):  # links and code cells of the exercise come first
        page.keyboard.press("Tab")
        if solution.evaluate(in_button) == "BUTTON":
            break
    assert solution.evaluate(in_button) == "BUTTON"
    outline = "() => getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) != "none", "one does not see where one is"
    assert not text.is_visible()
    for key, shown in (("Enter", "visible"), ("Space", "hidden"), ("Space", "visible")):
        page.keyboard.press(key)
        text.wait_for(state=shown, timeout=10_000)
        says = solution.locator("button.toggle-button").get_attribute("aria-expanded")
        assert says == str(shown == "visible").lower()
    assert text.bounding_box()["height"] > 10
    page.context.close()


@pytest.mark.browser
def test_a_dark_page_prints_in_light_colours_and_turns_back(browser, base):
    page = open_page(browser, base, "book/appendix/run.html", color_scheme="dark")
    theme = "() => document.documentElement.dataset.theme"
    seen = [page.evaluate(theme)]
    for event in ("beforeprint", "afterprint"):
        page.evaluate("name => { window.dispatchEvent(new Event(name)) }", event)
        seen.append(page.evaluate(theme))
    assert seen == ["dark", "light", "dark"]
    page.context.close()


@pytest.mark.browser
def test_without_scripts_the_figure_with_two_sliders_is_a_picture(browser, base):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(f"{base}/book/bursts/neuron.html")
    cell = page.locator(".cell:has(script.explorer-data)")
    assert cell.count() == 1 and cell.locator("img").count() == 1
    assert page.locator(".explorer").count() == 0
    page.context.close()


TWO_PAGES = {
    "root": "book/index",
    "parts": [{"caption": "Part I", "chapters": [{"file": "book/backprop/credit"}]}],
}


@pytest.mark.browser
def test_two_pages_are_one_file(browser, site):
    kept = io.BytesIO()
    pdf.book(site, TWO_PAGES, "Credit Assignment", "nobody", browser).write(kept)
    assert b"127.0.0.1" not in kept.getvalue() and str(site).encode() not in kept.getvalue()
    made = PdfReader(kept)
    outline = made.outline
    assert [outline[0].title, outline[-2].title] == ["Credit Assignment", "Part I"]
    chapter, sections = outline[-1]
    start = made.get_destination_page_number(chapter)
    assert len(sections) > 5 and start < made.get_destination_page_number(sections[-1])
    text = [p.extract_text() for p in made.pages]
    assert "Contents" in text[1] and str(start + 1) in text[1].split()
    assert text[start].split()[-1] == str(start + 1)  # the number in the lower margin
    assert "Three factors" in " ".join(text) and "Show code cell" not in " ".join(text)
    links = [a.get_object() for p in made.pages for a in p.get("/Annots", [])]
    inside = [a["/Dest"][0].get_object() for a in links if "/Dest" in a]
    assert made.pages[start].get_object() in inside  # from the contents and the first page
    outside = {a["/A"]["/URI"].split(":")[0] for a in links if "/A" in a}
    assert outside <= {"https", "http"}
