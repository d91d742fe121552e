"""An experiment that trains nets: every arm from every seed, one row an epoch."""

from __future__ import annotations

import copy
import inspect
import io
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from tqdm import tqdm

from lib import data, losses, measure, nets, rules, train
from lib.data import Data
from lib.rules import Backprop, Rule
from lib.runs.crew import SPLITS, Crew, Shards
from lib.runs.file import NETS, OPTIMIZERS, Run
from lib.runs.store import Row, as_text, data_sha256, same_settings, seal, unseal, write

Rng = np.random.Generator


def load_data(it: Run) -> Data:
    """The data a training run asks for; with ``held_out`` = n the last n training examples take
    the test set's place. ValueError where it does not fit, FileNotFoundError where it is not.
    """
    options = dict(it.settings["data"])
    name, held = options.pop("name"), options.pop("held_out", 0)
    needs = inspect.signature(data.MAKERS[name]).parameters
    if "rng" in needs:  # drawn anew from the option seed
        options["rng"] = np.random.default_rng(options.pop("seed", 0))
    try:
        d = data.load(name, dtype=getattr(torch, it.settings["dtype"]), **options)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{it.path.name} [data]: {e}") from e
    if held >= len(d.x_train):
        raise ValueError(f"{it.path.name} [data]: held_out must be below {len(d.x_train)}")
    if held:
        x, y = d.x_train, d.y_train
        d = replace(d, x_train=x[:-held], y_train=y[:-held], x_test=x[-held:], y_test=y[-held:])
    return d


def build(it: Run, arm: str, seed: int, device: str = "cpu") -> tuple[nets.Net, Rule, Optimizer]:
    """Net, rule and optimizer of one arm and seed; equal seeds give equal initial weights.

    Raises ValueError naming the file and the arm for settings that fit no net or rule.
    """
    s, a = it.settings, it.settings["arms"][arm]
    try:
        options = {k: v for k, v in s["net"].items() if k != "kind"}
        made = NETS[s["net"]["kind"]]
        rng, dtype = np.random.default_rng([seed, 0]), getattr(torch, s["dtype"])
        net = made(**options, rng=rng, dtype=dtype).to(device)
        rule, options = rules.get(a["rule"]), {"loss": s.get("loss")} | a.get("options", {})
        if "rng" in inspect.signature(rule).parameters:
            options["rng"] = np.random.default_rng([seed, 1])
        rule = rule(net, **options).to(device)
        opt, taken = OPTIMIZERS[a["optimizer"]]
        given = {k: a[k] for k in taken if k in a}
        step = opt([*net.parameters(), *rule.parameters()], fused=True, **given)  # 3 x as fast
    except (TypeError, ValueError) as e:
        raise ValueError(f"{it.path.name} [arms.{arm}] or [net]: {e}") from e
    return net, rule, step


def do(it: Run, c: Crew, off: bool | None) -> tuple[list[Row], dict]:
    """Train every arm from every seed: the rows in the file's order, and what they depend on."""
    s, d = it.settings, ready(it, c)
    units = [(arm, seed) for arm in s["arms"] for seed in s["seeds"]]
    mine = [(a, z) for a, z in units if not c.spread or s["seeds"].index(z) % c.size == c.rank]
    bar = tqdm(total=len(mine) * (s["epochs"] + 1), unit="epoch", disable=off)
    rows: dict[tuple, list[Row]] = {}
    it.work.mkdir(parents=True, exist_ok=True)  # each machine has its own, unless they share disks
    for arm, seed in mine:
        keep = it.work / f"{arm} {seed}.pt"
        rows[arm, seed] = train_one(it, arm, seed, d, epochs=s["epochs"], c=c, keep=keep, bar=bar)
    bar.close()
    for part in c.gather(rows) if c.spread else [rows]:
        rows |= part
    about = {"data_sha256": {s["data"]["name"]: data_sha256(d)}}
    return [row for unit in units for row in rows[unit]], about


def ready(it: Run, c: Crew) -> Data:
    """The data, on the device, after one step of every arm on two examples has shown it fits."""
    s, d = it.settings, load_data(it)
    if not 1 <= s["batch_size"] <= len(d.x_train):
        raise ValueError(f"{it.path.name}: batch_size must be at most {len(d.x_train)}")
    if c.size > s["batch_size"] and not c.spread:
        raise ValueError(f"a batch of {s['batch_size']} cannot be split over {c.size} processes")
    for arm, settings in s["arms"].items():
        if c.size > 1 and not c.spread and settings["rule"] not in SPLITS:
            raise ValueError(
                f"{it.path.name} [arms.{arm}]: batches cannot be split for {settings['rule']!r}, "
                f"only for {', '.join(SPLITS)}; give --spread seeds"
            )
        net, rule, _ = build(it, arm, s["seeds"][0])
        try:
            for x, y in ((d.x_train, d.y_train), (d.x_test, d.y_test)):
                rule(net, x[:2], y[:2])
                losses.as_targets(y, x.new_empty(len(y), net.layers[-1].n_out))
        except (ValueError, RuntimeError) as e:
            raise ValueError(f"{it.path.name} [net] does not fit [data]: {e}") from e
    parts = {n: getattr(d, n).to(c.device) for n in ("x_train", "y_train", "x_test", "y_test")}
    return replace(d, **parts)


def train_one(
    it: Run,
    arm: str,
    seed: int,
    d: Data,
    *,
    epochs: int,
    c: Crew,
    keep: Path | None = None,
    bar: tqdm | None = None,
    jolt: float = 0.0,
) -> list[Row]:
    """Train one arm from one seed: a row before training and one after each epoch.

    Seeds: [seed, 0] draws the weights, [seed, 1] what the rule draws, [seed, 2] the order of the
    examples, so arms share weights and order. ``keep``: where the state after each epoch is
    written, and read from if it is there. A run that diverges ends with a row whose loss is inf.
    ``jolt``: relative size of random changes to the initial weights.
    """
    s = it.settings
    net, rule, optimizer = build(it, arm, seed, c.device)
    for p in net.parameters() if jolt else ():
        noise = np.random.default_rng([seed, 3]).standard_normal(tuple(p.shape))
        p.data.mul_(1 + jolt * torch.from_numpy(noise).to(p))
    split = c.size > 1 and not c.spread
    step = Shards(rule, c.rank, c.size) if split else rule
    order, rows = np.random.default_rng([seed, 2]), []
    needs = {k: v for k, v in s.items() if k not in ("seeds", "arms")} | {"arm": s["arms"][arm]}
    writes = keep is not None and (c.rank == 0 or not split)
    state = _read(keep, needs) if writes and keep.exists() else None
    state = c.tell(state) if split else state
    if state is not None:
        rows = state["rows"]
        if "net" in state:
            net.load_state_dict(state["net"])
            rule.load_state_dict(state["rule"])
            optimizer.load_state_dict(state["optimizer"])
            order.bit_generator.state = state["order"]
            for name, value in state["draws"].items():
                getattr(rule, name).bit_generator.state = value
            vars(rule).update(state["numbers"])
    if bar is not None:
        bar.set_description(f"{arm}, seed {seed}")
        bar.update(len(rows))
    some, columns = slice(s["angles"]), _columns(len(net.layers))
    while len(rows) <= epochs and not (rows and rows[-1]["train_loss"] == "inf"):
        epoch, began = len(rows), time.process_time()
        row = dict.fromkeys(columns, "") | {"arm": arm, "seed": seed, "epoch": epoch}
        try:
            past = train.fit(
                net,
                step,
                d,
                epochs=epoch,
                start=max(epoch - 1, 0),
                batch_size=s["batch_size"],
                optimizer=optimizer,
                rng=order,
                progress=False,
            )
            row |= past.rows[-1] | _angles(net, rule, d.x_train[some], d.y_train[some])
            row["weights"] = nets.fingerprint(net)
        except FloatingPointError:
            row["train_loss"] = np.inf
        row["seconds"] = round(time.process_time() - began, 3)
        rows.append({name: as_text(value) for name, value in row.items()})
        if writes:
            state = {"settings": needs, "rows": rows}
            if epoch < epochs:
                state |= _state(net, rule, optimizer, order)
            content = io.BytesIO()
            torch.save(state, content)
            write(keep, seal(content.getvalue()))
        if bar is not None:
            bar.update()
            bar.set_postfix(error=rows[-1]["test_error"])
    return rows


def _columns(layers: int) -> list[str]:
    """A training run's columns; layers count from 0 as in lib.rules."""
    angles = [f"angle_{i}" for i in range(layers)] + [f"feedback_{i}" for i in range(1, layers)]
    scores = ["train_loss", "test_loss", "test_error"]
    return ["arm", "seed", "epoch", *scores, *angles, "weights", "seconds"]


def _angles(net: nets.Net, rule: Rule, x: Tensor, y: Tensor) -> dict[str, float]:
    """Per layer, in degrees: the rule's step to the gradient, and W to the feedback weights."""
    found = []
    for one in (copy.deepcopy(rule), Backprop(net, loss=rule.loss)):  # a copy: draws leave no mark
        one(net, x, y)
        found.append(measure.gradients(net))
    pairs = {f"angle_{i}": pair for i, pair in enumerate(zip(*found, strict=True))}
    for i, layer in enumerate(net.layers):
        back = rule.feedback(net, i) if i and hasattr(rule, "feedback") else None
        if back is not None and back.shape == layer.weight.shape:
            pairs[f"feedback_{i}"] = layer.weight, back
    out = {}
    for name, pair in pairs.items():
        try:
            out[name] = measure.angle(*pair)
        except ValueError:  # a vector of length 0 has no angle
            out[name] = np.nan
    return out


def _state(net: nets.Net, rule: Rule, optimizer: Optimizer, order: Rng) -> dict:
    """All that the next epoch depends on."""
    mine = {name: value for name, value in vars(rule).items() if not name.startswith("_")}
    return {
        "net": net.state_dict(),
        "rule": rule.state_dict(),
        "optimizer": optimizer.state_dict(),
        "order": order.bit_generator.state,
        "draws": {n: v.bit_generator.state for n, v in mine.items() if isinstance(v, Rng)},
        "numbers": {n: v for n, v in mine.items() if isinstance(v, int | float)},
    }


def _read(path: Path, settings: dict) -> dict:
    try:
        state = torch.load(io.BytesIO(unseal(path)), map_location="cpu", weights_only=True)
    except Exception as e:
        why = str(e).partition("\n")[0]
        raise ValueError(f"{path} is damaged ({why}): delete it, and its epochs are redone") from e
    same_settings(state["settings"], settings, f"the state {path.name}", path.parent)
    return state
