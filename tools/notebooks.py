"""Write book/PART/NAME.ipynb from book/_text/PART/NAME.md, run it, and check that both agree.

    python -m tools.notebooks build [PART/NAME ...]   text -> executed, stored notebook
    python -m tools.notebooks check                   report drift and anything not in normal form

Building prints each chapter's run time and peak memory beside its budget. Two builds on one
machine give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
TEXT = BOOK / "_text"
KERNEL = {
    "display_name": "Python 3 (ipykernel)",
    "language": "python",
    "name": "python3",
}
KEEP_CELL = {"tags", "mystnb"}
MAX_PNG = 200_000  # base64 bytes of one picture; a page stays small
BUDGET_SECONDS, BUDGET_MB = 60, 1000
KERNEL_ENV = {
    "PYTHONPATH": f"{ROOT / 'tests' / 'offline'}{os.pathsep}{ROOT}",  # this clone, no network
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}
MEMORY = "import resource as _r; print(_r.getrusage(_r.RUSAGE_SELF).ru_maxrss)"
MACHINE = re.compile(r"0x[0-9a-f]{8,}|/tmp/|/home/|/root/|/Users/|ipykernel_\d+")


@dataclass(frozen=True)
class Cost:
    """What a chapter's execution took."""

    name: str
    seconds: float
    megabytes: float


def chapters() -> list[str]:
    """Every chapter's name, PART/NAME, from the texts."""
    return sorted(p.relative_to(TEXT).with_suffix("").as_posix() for p in TEXT.rglob("*.md"))


def text_of(name: str) -> Path:
    return TEXT / f"{name}.md"


def notebook_of(name: str) -> Path:
    return BOOK / f"{name}.ipynb"


def from_text(path: Path) -> nbformat.NotebookNode:
    """The notebook of a text file, without outputs, with ids that depend on the content only."""
    nb = jupytext.read(path, fmt="md:myst")
    nb.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    nb.nbformat, nb.nbformat_minor = 4, 5
    seen: dict[str, int] = {}
    for cell in nb.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k in KEEP_CELL}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        digest = hashlib.sha1(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    return nb


def execute(nb: nbformat.NotebookNode, folder: Path) -> float:
    """Run in place, as a reader would, from the notebook's folder; returns peak memory in MB.

    A cell of ours at the end asks the kernel for its memory and is taken away again.
    """
    nb.cells.append(nbformat.v4.new_code_cell(MEMORY))
    os.environ.update(KERNEL_ENV)
    NotebookClient(
        nb,
        timeout=300,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--IPKernelApp.log_level=40"],  # no warning about local ports
    ).execute()
    last = nb.cells.pop()
    nb.metadata.language_info = {"name": "python"}
    for cell in nb.cells:
        cell.metadata.pop("execution", None)
    return float(last.outputs[0].text) / 1024


def build_one(name: str) -> Cost:
    """Write one chapter's executed notebook; the old one stays if a cell fails."""
    start, nb, out = time.time(), from_text(text_of(name)), notebook_of(name)
    out.parent.mkdir(parents=True, exist_ok=True)
    megabytes = execute(nb, out.parent)
    temporary = out.with_suffix(".ipynb.part")
    nbformat.write(nb, temporary)
    temporary.replace(out)
    return Cost(name, time.time() - start, megabytes)


def build(names: list[str], jobs: int) -> int:
    """Build chapters on ``jobs`` processes, print the budget table; the number of failures."""
    costs, failed = [], 0
    with ProcessPoolExecutor(jobs) as pool:
        todo = {pool.submit(build_one, name): name for name in names}
        for done in as_completed(todo):
            try:
                costs.append(done.result())
            except Exception as e:  # a failing cell, a time-out, a kernel that died
                failed += 1
                print(f"\n{todo[done]} FAILED; its stored notebook is unchanged", flush=True)
                print(f"{type(e).__name__}: {e}\n", flush=True)
    print(f"\n{'chapter':32} {'seconds':>8} {'MB':>6}   budget {BUDGET_SECONDS} s, {BUDGET_MB} MB")
    for c in sorted(costs, key=lambda c: c.name):
        over = c.seconds > BUDGET_SECONDS or c.megabytes > BUDGET_MB
        print(f"{c.name:32} {c.seconds:8.1f} {c.megabytes:6.0f}   {'OVER' if over else 'within'}")
    keep = ROOT / "_build" / "budget.json"
    keep.parent.mkdir(exist_ok=True)
    old = json.loads(keep.read_text()) if keep.exists() else {}
    old.update({c.name: [round(c.seconds, 1), round(c.megabytes)] for c in costs})
    keep.write_text(json.dumps(old, indent=1, sort_keys=True) + "\n")
    return failed


def inputs(nb: nbformat.NotebookNode) -> list:
    """What the author wrote: ids, kinds, sources and kept metadata."""
    return [(c.id, c.cell_type, c.source, dict(c.metadata)) for c in nb.cells]


def problems(path: Path) -> list[str]:
    """What keeps a stored notebook from being valid, runnable evidence, and what to do about it."""
    name = path.relative_to(BOOK).with_suffix("").as_posix()
    again = f"run: make chapter C={name}"
    nb = nbformat.read(path, as_version=4)
    nbformat.validate(nb)
    out = []
    text = text_of(name)
    if not text.exists():
        out.append(f"has no text twin {text.relative_to(ROOT)}: write it, or delete the notebook")
    elif inputs(from_text(text)) != inputs(nb):
        out.append(f"differs from its text twin; edit the text, then {again}")
    if set(nb.metadata) != {"kernelspec", "language_info"} or nb.metadata.kernelspec != KERNEL:
        out.append(f"notebook metadata {sorted(nb.metadata)}; {again}")
    code = [c for c in nb.cells if c.cell_type == "code"]
    if [c.execution_count for c in code] != list(range(1, len(code) + 1)):
        out.append(f"not run once from top to bottom; {again}")
    for i, c in enumerate(code, 1):
        out += [f"code cell {i}: {m}" for m in cell_problems(c, again)]
    return out


def bad_escape(source: str) -> str:
    """What Python says of a backslash that means nothing, as in "\\d"; empty if it says nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            compile(source, "cell", "exec")
        except (SyntaxError, SyntaxWarning, DeprecationWarning) as e:
            return str(e) if "escape" in str(e) else ""
    return ""


def cell_problems(cell: nbformat.NotebookNode, again: str) -> list[str]:
    """What is wrong with one code cell's source or stored outputs."""
    tags, meta = cell.metadata.get("tags", []), cell.metadata.get("mystnb", {})
    out = []
    if cell.source.rstrip().endswith(";"):
        out.append("trailing ';' (the validation ignores it): use plt.show() or _ = ...")
    if escape := bad_escape(cell.source):
        out.append(f'{escape}: newer Pythons print a warning; write r"..."')
    if len(cell.source.splitlines()) > 25:
        out.append("longer than 25 lines: move code to lib/, or split it")
    if set(cell.metadata) - KEEP_CELL:
        out.append(f"stray metadata {sorted(set(cell.metadata) - KEEP_CELL)}; {again}")
    if {"nbval-skip", "nbval-ignore-output"} & set(tags) and "# why:" not in cell.source:
        out.append("is exempt from validation without a '# why: ...' comment that says the reason")
    for o in cell.outputs:
        if o.output_type == "error" and "raises-exception" not in tags:
            out.append(f"stored error {o.ename}; mend the cell, then {again}")
        if o.output_type == "stream" and o.name == "stderr":
            out.append("writes to stderr: mend the warning, do not hide it")
        data = o.get("data", {})
        body = "".join(str(v) for k, v in data.items() if not k.startswith("image/"))
        body += str(o.get("text", ""))
        if MACHINE.search(body):
            out.append(f"machine-dependent output {body[:80]!r}: print something else")
        picture = data.get("image/png")
        if picture and len(picture) > MAX_PNG:
            out.append(f"a picture of {len(picture)} bytes, over {MAX_PNG}: draw less")
        if picture and not (
            meta.get("image", {}).get("alt") and meta.get("figure", {}).get("caption")
        ):
            out.append("a figure without alt text and caption: see CONTRIBUTING, Figures")
    return out


def main(argv: list[str]) -> int:
    if argv[:1] == ["build"]:
        names = argv[1:] or chapters()
        unknown = sorted(set(names) - set(chapters()))
        if unknown:
            print(f"no text for {', '.join(unknown)}; there are {', '.join(chapters())}")
            return 2
        return int(build(names, jobs=min(2, os.cpu_count() or 1)) > 0)
    if argv == ["check"]:
        found = [p for p in sorted(BOOK.rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts]
        bad = [f"{p.relative_to(ROOT)}: {m}" for p in found for m in problems(p)]
        print("\n".join(bad) or f"{len(found)} notebooks in normal form")
        return int(bool(bad))
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
