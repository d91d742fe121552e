"""python -m lib.runs run | list | show | verify: see lib.runs."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence

import torch

from lib.runs import file, listing, run, show, verify


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 if all is well, 1 if a result differs, 2 for what cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m lib.runs", description="Long experiments: run, list, show, verify."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="run a file, or go on with it")
    one.add_argument("file", help="book/runs/NAME.toml")
    one.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    one.add_argument("--spread", choices=("seeds",), help="under torchrun: seeds, not batches")
    commands.add_parser("list", help="what is stored")
    commands.add_parser("show", help="measured beside published").add_argument("name")
    commands.add_parser("verify", help="recompute a part").add_argument("name", nargs="*")
    a = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    try:
        if a.command == "run":
            run(a.file, device=a.device, spread=bool(a.spread))
        elif a.command == "list":
            print(listing())
        elif a.command == "show":
            print(show(a.name))
        else:
            names = a.name or sorted(p.stem for p in file.HOME.glob("*.toml"))
            found = []
            for name in names:
                found.append(verify(name))
                print(f"{name}: {': '.join(found[-1])}", flush=True)
            return int(any(state == "differs" for state, _ in found))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, OSError) as e:
        full = getattr(e, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        more = "; what is done is kept: make room, and the same command goes on from there"
        print(f"error: {e}{more if full else ''}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
