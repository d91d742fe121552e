"""Ratios of times beside the bars they are held to, in book/appendix/bench.csv.

The benches write them there and the status page shows them. ``python -m tools.bars`` names those
that miss their bar.
"""

from __future__ import annotations

import csv
import datetime
import os
import platform
import sys
from pathlib import Path

TABLE = Path(__file__).resolve().parents[1] / "book" / "appendix" / "bench.csv"
HEAD = ("benchmark", "ratio", "bar", "met", "date", "machine")


def stored() -> dict[str, dict[str, str]]:
    """What was measured last: benchmark -> row."""
    if not TABLE.exists():
        return {}
    with TABLE.open(encoding="utf8") as file:
        return {row["benchmark"]: row for row in csv.DictReader(file)}


def met(ratio: float, bar: str) -> bool:
    """Whether a ratio keeps its bar, "at most 2" or "at least 1"; ValueError for other words."""
    words, limit = bar.rsplit(" ", 1)
    if words not in ("at most", "at least"):
        raise ValueError(f'expected a bar such as "at most 2" or "at least 1", found {bar!r}')
    return ratio <= float(limit) if words == "at most" else ratio >= float(limit)


def record(benchmark: str, ratio: float, bar: str) -> None:
    """Put a ratio beside its bar into the table, in place of an older one."""
    today = datetime.date.today().isoformat()
    machine = f"{platform.machine()} with {os.cpu_count()} processors"
    kept = "yes" if met(ratio, bar) else "no"
    row = dict(zip(HEAD, (benchmark, f"{ratio:.2f}", bar, kept, today, machine), strict=True))
    beside = TABLE.with_suffix(".tmp")
    with beside.open("w", newline="", encoding="utf8") as out:
        table = csv.DictWriter(out, HEAD, lineterminator="\n")
        table.writeheader()
        table.writerows((stored() | {benchmark: row}).values())
    os.replace(beside, TABLE)


def main() -> int:
    missed = [row for row in stored().values() if row["met"] != "yes"]
    for row in missed:
        print(f"misses its bar: {row['benchmark']}: {row['ratio']}, {row['bar']}")
    print(f"{len(stored()) - len(missed)} of {len(stored())} ratios keep their bars")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
