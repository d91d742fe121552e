"""Long experiments: run one, stop and continue it, store, show and verify its result.

    python -m lib.runs run book/runs/NAME.toml [--device cuda] [--spread seeds]
    python -m lib.runs list                 what is stored
    python -m lib.runs show NAME            measured beside published
    python -m lib.runs verify [NAME ...]    recompute a part, compare it with what is stored

A result is book/runs/NAME/results.csv with provenance.json beside it, written when all is done.
Until then what is done lies in _build/runs/NAME: stop at any moment, a kill included, and the
same command goes on with the same rows. Under ``torchrun`` batches are split over the processes,
or with ``--spread seeds`` the seeds.
"""

from lib.runs.compare import listing, show, verify
from lib.runs.store import Result, load, script
from lib.runs.work import run

__all__ = ["Result", "listing", "load", "run", "script", "show", "verify"]
