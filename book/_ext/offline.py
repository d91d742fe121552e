"""Make the built book free of network requests, and its links those of the real repository.

Copies the needed part of the MathJax 3 that the package sphinx-mathjax-offline carries, drops the
Thebe scripts (always loaded by jupyter-book, and naming a CDN) and scripts registered twice,
points "suggest edit" at a chapter's text, takes the repository's address from GitHub Actions, and
leaves out the icons that no page shows and what no picture needs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path

import pydata_sphinx_theme
from PIL import Image

PARTS = ["tex-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions"]

ICONS = Path("scripts", "fontawesome.js")
# one icon: "name":[width,height,[other names],"code point","path" or ["path","path"]],
ICON = re.compile(
    r'"?([a-z0-9-]+)"?:\[\d+,\d+,\[([^\]]*)\],"[0-9a-f]+",(?:"[^"]*"|\["[^"]*"(?:,"[^"]*")*\])\],?'
)


def _mathjax() -> Path:
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    return Path(spec.origin).parent / "static" / "mathjax"


def _configure(app, config):
    config.mathjax_path = "mathjax/tex-chtml.js"
    config.html_context.setdefault("default_mode", "auto")
    repository = os.environ.get("GITHUB_REPOSITORY")
    if repository:
        owner, name = repository.split("/")
        config.html_theme_options["repository_url"] = f"https://github.com/{repository}"
        config.html_baseurl = f"https://{owner}.github.io/{name}/"


def _clean_scripts(app, pagename, templatename, context, doctree):
    seen, keep = set(), []
    for s in context["script_files"]:
        attrs = getattr(s, "attributes", {})
        key = str(getattr(s, "filename", s)) + repr(sorted(attrs.items()))
        if key in seen or "thebe" in key.lower():
            continue
        seen.add(key)
        keep.append(s)
    context["script_files"][:] = keep


def _edit_the_text(app, pagename, templatename, context, doctree):
    """The notebook is generated: "suggest edit" belongs to its text twin."""

    def walk(buttons):
        for b in buttons:
            walk(b.get("buttons", []))
            url = b.get("url", "")
            if "/edit/" in url and url.endswith(".ipynb"):
                b["url"] = url.replace("/book/", "/book/_text/", 1)[: -len(".ipynb")] + ".md"

    walk(context.get("header_buttons", []))


def _paragraphs(app, what, name, obj, options, lines):
    """In a docstring, what is raised, the source and the departures begin a new paragraph."""
    for i in reversed(range(1, len(lines))):
        if lines[i].startswith(("Raises ", "Source: ", "Departs: ")):
            lines.insert(i, "")


def _copy(app, exc):
    if exc or app.builder.format != "html":
        return
    out = Path(app.outdir) / "_static" / "mathjax"
    for part in PARTS:
        src, dst = _mathjax() / part, out / part
        if dst.exists():
            continue
        dst.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(src, dst) if src.is_dir() else shutil.copy2(src, dst)


def _trim_icons(app, exc):
    """All 1,900 icons of the theme would be more than half of what a page loads."""
    if exc or app.builder.format != "html":
        return
    out, used = Path(app.outdir), set()
    for path in [*out.rglob("*.html"), *out.glob("_static/**/*.js")]:
        if "mathjax" not in path.parts and path.name != ICONS.name:
            used |= set(re.findall(r"\bfa-([a-z0-9-]+)", path.read_text(encoding="utf8")))

    def keep(m: re.Match) -> str:
        return m[0] if used & {m[1], *re.findall(r'"([^"]+)"', m[2])} else ""

    theme = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
    (out / "_static" / ICONS).write_text(ICON.sub(keep, (theme / ICONS).read_text("utf8")), "utf8")


def _shrink_pictures(app, exc):
    """Opaque pictures need no alpha channel: the same pixels in an eighth fewer bytes."""
    if exc or app.builder.format != "html":
        return
    for path in Path(app.outdir, "_images").glob("*.png"):
        with Image.open(path) as picture:
            if picture.mode == "RGBA" and picture.getextrema()[3] == (255, 255):
                rgb = picture.convert("RGB")
                rgb.save(path, optimize=True)


def setup(app):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # autodoc: the lib of this clone
    app.connect("config-inited", _configure)
    app.connect("html-page-context", _clean_scripts, priority=900)
    app.connect("html-page-context", _edit_the_text, priority=900)
    app.connect("autodoc-process-docstring", _paragraphs)
    app.connect("build-finished", _copy)
    app.connect("build-finished", _trim_icons)
    app.connect("build-finished", _shrink_pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
