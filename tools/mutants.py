"""Plant known bugs in a copy of the repository, one at a time, and see whether a check fails.

python -m tools.mutants            all of tools/mutants.toml; writes book/appendix/mutants.csv
python -m tools.mutants softmax    only those with "softmax" in their name; puts their rows there
python -m tools.mutants --waiting  only those that were not planted yet

A check is a test ("tests/test_nets.py", "tests/test_nets.py::test_conv_maps_by_hand") or a claim of
a chapter ("backprop/credit::credit.xor-solved"): the chapter then runs from its start to the cell
that makes the claim, and every output on the way must be the stored one. Each check must pass
without a bug first. Tests run in a fork that has the big packages loaded already.
"""

from __future__ import annotations

import csv
import importlib
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import nbformat
from tqdm import tqdm

from tools import notebooks

ROOT = Path(__file__).resolve().parents[1]
LIST, TABLE = ROOT / "tools/mutants.toml", ROOT / "book/appendix/mutants.csv"
HEAD = ("planted bug", "in", "noticed by")
WAITS = "not run yet"  # in place of what noticed a bug
LONGEST = 300, 1800  # seconds of processor and by the clock; a check that hangs has noticed
HEAVY = "torch numba scipy.stats sklearn.datasets hypothesis nbval.plugin matplotlib.pyplot"
NBVAL = ("-p", "nbval.plugin", "--nbval", "--nbval-current-env", "--nbval-cell-timeout", "300")
CELL = re.compile(r"(\S*)only-(\S+)\.ipynb::Cell (\d+)")


def bugs() -> list[dict]:
    """The planted bugs, in order. Raises ValueError where one cannot be planted."""
    found = tomllib.loads(LIST.read_text())["bug"]
    for bug in found:
        text = (ROOT / bug["at"]).read_text()
        if text.count(bug["find"]) != 1 or bug["find"] == bug["put"]:
            raise ValueError(
                f"{bug['name']!r}: expected the text to replace once in {bug['at']}, found it "
                f"{text.count(bug['find'])} times; bring tools/mutants.toml up to date"
            )
        if bug["at"].endswith(".py"):  # a bug, not a slip of the pen
            compile(text.replace(bug["find"], bug["put"]), bug["at"], "exec")
    return found


def table() -> dict[str, dict[str, str]]:
    """The stored results: name of the bug -> row."""
    if not TABLE.exists():
        return {}
    with TABLE.open(encoding="utf8") as file:
        return {row[HEAD[0]]: row for row in csv.DictReader(file)}


def copy(to: Path) -> None:
    """What git tracks, as it is on disk now."""
    files = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def cut(where: Path, chapter: str, claim: str) -> Path:
    """A notebook with the chapter's text up to the cell of a claim, and its stored outputs."""
    nb = notebooks.from_text(where / f"book/_text/{chapter}.md")
    old = nbformat.read(where / f"book/{chapter}.ipynb", as_version=4)
    for cell, was in zip(nb.cells, old.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = was.outputs, was.execution_count
    last = next(i for i, c in enumerate(nb.cells) if f'"{claim}"' in c.source)
    nb.cells = nb.cells[: last + 1]
    path = (where / f"book/{chapter}.ipynb").with_name(f"only-{claim}.ipynb")
    nbformat.write(nb, path)
    return path


def pytest_in(where: Path, args: list[str], out: Path) -> None:
    """In a process of its own: run pytest in the copy, with the copy's modules alone."""
    os.setsid()
    os.chdir(where)
    sys.stdout = sys.stderr = out.open("w", buffering=1)
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stdout.fileno(), 2)
    paths = [str(where), str(where / "tests/offline")]
    os.environ |= {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # half of a small test's time
    resource.setrlimit(resource.RLIMIT_CPU, (LONGEST[0], LONGEST[0]))
    ours = [str(ROOT), str(ROOT / "tests/offline"), ""]
    sys.path[:] = paths + [p for p in sys.path if p not in ours]
    for name in [n for n in sys.modules if n.split(".")[0] in ("lib", "tools", "tests")]:
        del sys.modules[name]
    import pytest

    os._exit(int(pytest.main(args)))


def stop(where: Path) -> None:
    """End what a test that hangs has started in the copy, in sessions of their own."""
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"PYTHONPATH={where}".encode() in environ.read_bytes():
                os.kill(int(environ.parent.name), signal.SIGKILL)
        except OSError:  # gone, or another user's
            pass


def put(file: Path, text: str, moment: float) -> None:
    """Write a file as if at that moment: two versions of one second would share their bytecode."""
    file.write_text(text)
    os.utime(file, (moment, moment))


def run(where: Path, checks: list[str]) -> str | None:
    """Run the checks in the copy; the name of the first that fails, None where all pass."""
    claims = [c.split("::") for c in checks if not c.startswith("tests/")]
    books = [cut(where, *c) for c in claims]
    args = [str(b.relative_to(where)) for b in books]
    args += [c for c in checks if c.startswith("tests/")]
    if books:
        args = [*NBVAL, "--nbval-sanitize-with", "tests/nbval.cfg", *args]
    out = where / "out.txt"
    args = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", *args]
    child = multiprocessing.get_context("fork").Process(target=pytest_in, args=(where, args, out))
    child.start()
    child.join(LONGEST[1])
    hangs = child.exitcode in (None, -signal.SIGXCPU, -signal.SIGKILL)
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    if hangs:
        stop(where)
    child.join()
    for book in books:
        book.unlink()
    if hangs:
        return "it hangs"
    if child.exitcode == 0:
        return None
    text = out.read_text(errors="replace")
    for line in text.splitlines():
        if m := CELL.search(line):
            return f"{m[1]}{claims[0][0].split('/')[1]}.ipynb, cell {int(m[3]) + 1}"
        if line.startswith(("FAILED ", "ERROR ")):
            return line.split()[1].split("[")[0]
    raise RuntimeError(f"the checks {checks} did not run ({child.exitcode}):\n{text}")


def store(rows: dict[str, dict[str, str]], every: list[dict]) -> None:
    """Write a row for each bug there is, in their order; what was never planted says so."""
    beside = TABLE.with_suffix(".tmp")
    with beside.open("w", newline="", encoding="utf8") as out:
        writer = csv.DictWriter(out, HEAD, lineterminator="\n")
        writer.writeheader()
        for bug in every:
            waits = dict(zip(HEAD, (bug["name"], bug["at"], WAITS), strict=True))
            writer.writerow(rows.get(bug["name"], waits))
    os.replace(beside, TABLE)


def main(words: list[str]) -> int:
    for name in HEAVY.split():
        importlib.import_module(name)  # once, for all forks
    every = bugs()
    rows = table()
    waiting = {name for name, row in rows.items() if row["noticed by"] == WAITS}
    chosen = [b for b in every if all(w in b["name"] for w in words)]
    if words == ["--waiting"]:
        chosen = [b for b in every if b["name"] in waiting or b["name"] not in rows]
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder).resolve()
        copy(where)
        sound = {c for b in chosen for c in b["check"]}
        whole = {c for c in sound if "::" not in c}  # a file's tests hold each single one of them
        tests = sorted(c for c in sound if c.split("::")[0] not in whole or c in whole)
        alone = [[c] for c in tests if not c.startswith("tests/")]
        for checks in [[c for c in tests if c.startswith("tests/")], *alone]:
            if checks and (failed := run(where, checks)):
                print(f"without any bug {failed} fails: mend that first\n")
                print((where / "out.txt").read_text()[-3000:])
                return 2
        for number, bug in enumerate(tqdm(chosen, disable=None), 1):
            file, began = where / bug["at"], time.perf_counter()
            old, moment = file.read_text(), file.stat().st_mtime
            put(file, old.replace(bug["find"], bug["put"]), moment + number)
            failed = run(where, bug["check"])
            put(file, old, moment)
            took = time.perf_counter() - began
            print(f"{'killed' if failed else 'SURVIVED':9} {took:4.0f} s {bug['name']}", flush=True)
            row = (bug["name"], bug["at"], failed or "survived")
            rows[bug["name"]] = dict(zip(HEAD, row, strict=True))
            store(rows, every)
    killed = sum(rows[b["name"]]["noticed by"] != "survived" for b in chosen)
    print(f"{killed} of {len(chosen)} killed")
    return 0 if killed >= 0.9 * len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
