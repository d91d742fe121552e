"""Several processes at one experiment: who is who, and a rule whose batch is split over them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lib.nets import Net
from lib.rules import Rule

SPLITS = (  # rules whose .grad is a mean over examples, each told of itself alone
    "backprop",
    "direct feedback",
    "feedback alignment",
    "kickback",
    "kolen-pollack",
    "sign symmetry",
)


@dataclass(frozen=True)
class Crew:
    """This process's place among those of one ``torchrun``; rank 0 writes."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    spread: bool = False

    def tell(self, value: Any) -> Any:
        """Rank 0's value, for all."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Everyone's values, for all."""
        if self.size == 1:
            return [value]
        box = [None] * self.size
        dist.all_gather_object(box, value)
        return box


@contextmanager
def crew(device: str = "cpu", spread: bool = False) -> Iterator[Crew]:
    """Join the processes that torchrun started, if it did; leave them at the end.

    Raises ValueError for a GPU that is not there.
    """
    size, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    if device == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if local >= found:
            raise ValueError(
                f"--device cuda: expected a GPU for each process here, found {found}; leave it "
                "out, or start no more processes than there are GPUs"
            )
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        device = f"cuda:{local}"
        torch.cuda.set_device(device)
    joined = size > 1 and not dist.is_initialized()
    if joined:
        backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, timeout=timedelta(days=7))
    try:
        rank = dist.get_rank() if size > 1 else 0
        yield Crew(rank, size, device, spread)
    finally:
        if joined:
            dist.destroy_process_group()


class Shards(nn.Module):
    """A rule whose batch is split over processes: each takes its share, gradients are summed.

    Called as the rule: every process gives the same batch, works on its own part, and scales by
    its share of the examples, so that the sum over processes is one process's mean: ``.grad`` of
    the net and of the rule's parameters, and the loss returned.
    """

    def __init__(self, rule: Rule, rank: int, size: int) -> None:
        super().__init__()
        self.rule, self.loss, self.rank, self.size = rule, rule.loss, rank, size

    @torch.no_grad()
    def forward(self, net: Net, x: Tensor, y: Tensor) -> Tensor:
        """One step of credit on a batch x (n, ...), y; expects n >= 1."""
        at = slice(self.rank * len(x) // self.size, (self.rank + 1) * len(x) // self.size)
        share = len(x[at]) / len(x)
        loss = self.rule(net, x[at], y[at]) if share else x.new_zeros(())
        learn = [p for p in (*net.parameters(), *self.rule.parameters()) if p.grad is not None]
        parts = [loss.reshape(1), *(p.grad.flatten() for p in learn)]
        total = torch.cat(parts)  # without a share these are the last step's
        total = total * share if share else torch.zeros_like(total)
        dist.all_reduce(total)
        for p, grad in zip(learn, total[1:].split([p.numel() for p in learn]), strict=True):
            p.grad = grad.reshape(p.shape)
        return total[0]
