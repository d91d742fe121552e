"""Plant known bugs in a copy of the repository, one at a time, and see whether a check fails.

python -m tools.mutants            all of tools/mutants.toml; writes book/appendix/mutants.csv
python -m tools.mutants softmax    only those with "softmax" in their name; writes nothing
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
LIST, TABLE = ROOT / "tools/mutants.toml", ROOT / "book/appendix/mutants.csv"
TIMEOUT = 300  # seconds; a check that hangs on a bug has noticed it


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
    return found


def copy(to: Path) -> None:
    """What git tracks, as it is on disk now."""
    files = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def run(where: Path, checks: list[str]) -> str | None:
    """Run the checks in the copy; the name of the first that fails, None where all pass."""
    env = {**os.environ, "PYTHONPATH": f"{where}/tests/offline:{where}", "OMP_NUM_THREADS": "1"}
    nbval = ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", "tests/nbval.cfg"]
    extra = nbval if any(c.endswith(".ipynb") for c in checks) else []
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header"]
    try:
        done = subprocess.run(
            [*command, *extra, *checks], cwd=where, env=env, text=True, capture_output=True,
            timeout=TIMEOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "it hangs"
    if done.returncode == 0:
        return None
    for line in done.stdout.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            return line.split()[1].split("[")[0]
    raise RuntimeError(f"the checks {checks} did not run:\n{done.stdout}\n{done.stderr}")


def main(words: list[str]) -> int:
    chosen = [b for b in bugs() if all(w in b["name"] for w in words)]
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        copy(where)
        every = sorted({c for b in chosen for c in b["check"]})
        if failed := run(where, every):
            print(f"without any bug {failed} fails: mend that first")
            return 2
        rows = []
        for bug in tqdm(chosen, disable=None):
            file = where / bug["at"]
            sound = file.read_text()
            file.write_text(sound.replace(bug["find"], bug["put"]))
            failed = run(where, bug["check"])
            file.write_text(sound)
            rows.append((bug["name"], bug["at"], failed or "survived"))
            print(f"{'killed' if failed else 'SURVIVED':9} {bug['name']}", flush=True)
    killed = sum(row[2] != "survived" for row in rows)
    print(f"{killed} of {len(rows)} killed")
    if not words:
        beside = TABLE.with_suffix(".tmp")
        with beside.open("w", newline="") as out:
            csv.writer(out, lineterminator="\n").writerows(
                [("planted bug", "in", "noticed by"), *rows]
            )
        os.replace(beside, TABLE)
    return 0 if killed >= 0.9 * len(rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
