"""Run chapters with other random numbers, and see which claims still hold.

    python -m tools.reseed SEED [PART/NAME ...]

Whatever the text, the library or a run's script seeds with k is seeded with (k, SEED) instead:
weights, data, orders, noise, spikes. A claim outside its band is then written down instead of
stopping the chapter; so is a cell that fails. What compares with numbers drawn at the old seed
(a stored run trained again, the paper's own spikes) cannot hold and is named, with the reason, in
tools/reseed.toml; anything else that fails was a lucky seed. Stored runs and MNIST-1D (made by its
authors' package) stay as they are. Puts a row per chapter into book/appendix/reseed.csv.
"""

from __future__ import annotations

import csv
import os
import re
import sys
import tomllib
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient

from tools import notebooks

ROOT = Path(__file__).resolve().parents[1]
TABLE, EXPECTED = ROOT / "book/appendix/reseed.csv", ROOT / "tools/reseed.toml"
HEAD = ("chapter", "seed", "claims", "held", "not held")
CLAIM = re.compile(r"^claim (\S+?):? (?:.* (holds)$|fails: (.*)$)", re.M)


def hook(seed: int) -> None:
    """In a chapter's kernel: seed every generator with (k, seed), and let no claim raise."""
    from lib import ledger

    generator, sequence, claim = np.random.default_rng, np.random.SeedSequence, ledger.claim

    def moved(k: object) -> object:
        numbers = (int, np.integer, list, tuple)
        return [*np.atleast_1d(k).tolist(), seed] if isinstance(k, numbers) else k

    def softly(id: str, *args: float, **options: int) -> None:
        try:
            claim(id, *args, **options)
        except (AssertionError, ValueError) as error:
            print(str(error) if " fails: " in str(error) else f"claim {id} fails: {error}")

    np.random.default_rng = lambda k=None: generator(moved(k))
    np.random.SeedSequence = lambda k=None, **options: sequence(moved(k), **options)
    ledger.claim = softly


@dataclass(frozen=True)
class Result:
    """What became of one chapter: claims that held, and a sentence for each thing that did not."""

    name: str
    held: list[str]
    failed: dict[str, str]


def checked(nb: nbformat.NotebookNode) -> list[str]:
    """The ids of the claims that a run notebook printed as holding."""
    text = "\n".join(o.get("text", "") for c in nb.cells for o in c.get("outputs", []))
    return [m[1] for m in CLAIM.finditer(text) if m[2]]


def outcome(name: str, nb: nbformat.NotebookNode, usual: list[str]) -> Result:
    """Read a chapter that ran with other seeds; ``usual``: the claims it makes with its own."""
    failed: dict[str, str] = {}
    for number, cell in enumerate((c for c in nb.cells if c.cell_type == "code"), 1):
        for output in cell.outputs:
            failed.update({m[1]: m[3] for m in CLAIM.finditer(output.get("text", "")) if m[3]})
            if output.output_type == "error" and "raises-exception" not in cell.metadata.get(
                "tags", []
            ):
                line = cell.source.splitlines()[0]
                failed[f"cell {number}"] = f"{output.ename}: {output.evalue[:90]} ({line})"
    held = checked(nb)
    failed.update({id: "not reached" for id in usual if id not in held and id not in failed})
    return Result(name, held, failed)


def run(name: str, seed: int) -> Result:
    """One chapter with other seeds, from its text; nothing is stored."""
    nb = notebooks.from_text(notebooks.text_of(name))
    first = nbformat.v4.new_code_cell(f"from tools import reseed\nreseed.hook({seed})")
    nb.cells.insert(0, first)
    os.environ.update(notebooks.KERNEL_ENV)
    NotebookClient(
        nb, timeout=1800, iopub_timeout=600, kernel_name="python3", allow_errors=True,
        coalesce_streams=True,
        resources={"metadata": {"path": str(notebooks.notebook_of(name).parent)}},
        extra_arguments=["--IPKernelApp.log_level=40"],
    ).execute()  # fmt: skip
    if any(o.output_type == "error" for o in nb.cells[0].outputs):
        raise RuntimeError(f"{name}: the seeds could not be changed: {nb.cells[0].outputs}")
    nb.cells.pop(0)
    return outcome(name, nb, checked(nbformat.read(notebooks.notebook_of(name), 4)))


def stored() -> dict[tuple[str, str], dict[str, str]]:
    """The rows of the table on disk: (chapter, seed) -> row."""
    if not TABLE.exists():
        return {}
    with TABLE.open(encoding="utf8") as file:
        return {(row["chapter"], row["seed"]): row for row in csv.DictReader(file)}


def store(result: Result, seed: int) -> None:
    """Put one chapter's row into the table, in place of the one with this seed."""
    claims = {*result.held, *(i for i in result.failed if " " not in i)}
    failed = " | ".join(f"{i}: {what}" for i, what in sorted(result.failed.items()))
    row = (result.name, str(seed), str(len(claims)), str(len(result.held)), failed)
    rows = {**stored(), row[:2]: dict(zip(HEAD, row, strict=True))}
    beside = TABLE.with_suffix(".tmp")
    with beside.open("w", newline="", encoding="utf8") as out:
        table = csv.DictWriter(out, HEAD, lineterminator="\n")
        table.writeheader()
        table.writerows(rows[key] for key in sorted(rows))
    os.replace(beside, TABLE)


def reasons() -> dict[str, str]:
    """id of a claim, or "PART/NAME cell N" -> why it cannot hold with other seeds."""
    return tomllib.loads(EXPECTED.read_text(encoding="utf8")) if EXPECTED.exists() else {}


def main(argv: list[str]) -> int:
    if not argv or not argv[0].isdecimal() or set(argv[1:]) - set(notebooks.chapters()):
        print(__doc__)
        return 2
    seed, names, why, lucky = int(argv[0]), argv[1:] or notebooks.chapters(), reasons(), 0
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for done in as_completed([pool.submit(run, name, seed) for name in names]):
            result = done.result()
            store(result, seed)
            print(f"{result.name}: {len(result.held)} claims hold", flush=True)
            for i, what in sorted(result.failed.items()):
                known = i in why or f"{result.name} {i}" in why
                lucky += not known
                print(f"    {i}: {what}{' (by design)' * known}", flush=True)
    print(f"{lucky} of the book's checks hold with its own seeds only")
    return int(lucky > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
