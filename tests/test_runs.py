"""lib.runs: what is written, what survives a kill, what is refused, what verify sees."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers import DATA_FOLDER

from lib import data, measure, nets, rules, runs, train
from lib.runs import compare, crew, file, store, training, work
from lib.runs.__main__ import main

TOML = """
title = "digits, small"
note = "nothing was tuned"
seeds = [3, 5]
batch_size = 50
epochs = 3
angles = 100

[data]
name = "digits"

[net]
kind = "mlp"
sizes = [64, 20, 10]
activation = "sigmoid"
output = "softmax"

[arms.backprop]
rule = "backprop"
lr = 0.3
momentum = 0.9
source = "ours"

[arms."learned back"]
rule = "kolen-pollack"
lr = 0.3
momentum = 0.5
weight_decay = 1e-3
source = "ours"

[arms.shaken]
rule = "node perturbation"
optimizer = "Adam"
lr = 0.01
options = {sigma = 0.01}
source = "ours"
"""
SCRIPT = """
import json, pathlib
COLUMNS = "task rate seed score seconds".split()
KEY = 3
def job(task, rate, seed):
    assert isinstance(rate, float) and isinstance(seed, int)
    with open(pathlib.Path(__file__).with_name("calls"), "a") as f:
        f.write(json.dumps([task, rate, seed]) + "\\n")
    return {"score": seed * rate / 3}
def plan(get):
    for task in "ba":
        best = max((0.1, 0.3), key=lambda rate: float(get(task, rate, 1)["score"]))
        for seed in (2, 3, 4):
            get(task, best, seed)
"""


def write(folder: Path, text: str = TOML, name: str = "small", **swaps: str) -> Path:
    """A run's file; ``swaps``: text to replace, given as old -> new pairs in a dict."""
    for old, new in swaps.pop("swap", {}).items():
        assert old in text
        text = text.replace(old, new)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text(text)
    return folder / f"{name}.toml"


def scripted(folder: Path, code: str = SCRIPT, name: str = "jobs") -> Path:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "run.py").write_text(code)
    return write(folder, 'title = "some jobs"\nscript = "run.py"\n', name)


def rows(path: Path) -> list[dict]:
    """What is stored, but for the seconds."""
    with open(path.with_suffix("") / "results.csv", newline="") as f:
        return [{k: v for k, v in r.items() if k != "seconds"} for r in csv.DictReader(f)]


def child(path: Path, *, prepare=lambda: None) -> int:
    """Start the run in a process of its own; its id."""
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            prepare()
            os._exit(main(["run", str(path)]))
        finally:
            os._exit(99)
    return pid


def wait(pid: int) -> int:
    """Its exit code; below 0 the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """The small run, undisturbed. Tests leave it as it is."""
    path = write(tmp_path_factory.mktemp("done"))
    assert runs.run(path, progress=False) == path.with_suffix("") / "results.csv"
    return path


def copied(path: Path, folder: Path) -> Path:
    """A copy of a stored run, to be spoiled."""
    new = write(folder, path.read_text(), path.stem)
    (folder / path.stem).mkdir()
    for old in path.with_suffix("").iterdir():
        (folder / path.stem / old.name).write_bytes(old.read_bytes())
    return new


def tamper(path: Path, change, *, honest_hash: bool = True) -> None:
    """Change the stored rows, and (as a forger would) the hash in the provenance too."""
    folder = path.with_suffix("")
    stored = list(csv.DictReader(open(folder / "results.csv", newline="")))
    stored = change(stored) or stored
    (folder / "results.csv").write_bytes(store.as_table(stored))
    if honest_hash:
        made = json.loads((folder / "provenance.json").read_text())
        made["results_sha256"] = store.sha256((folder / "results.csv").read_bytes())
        (folder / "provenance.json").write_text(json.dumps(made))


# --- what is stored


def test_one_row_per_arm_seed_and_epoch_in_the_order_of_the_file(done):
    found = [(r["arm"], r["seed"], r["epoch"]) for r in rows(done)]
    arms = ("backprop", "learned back", "shaken")
    assert found == [(a, s, str(e)) for a in arms for s in "35" for e in range(4)]
    assert list(rows(done)[0])[3:] == (
        "train_loss test_loss test_error angle_0 angle_1 feedback_1 weights".split()
    )


def test_the_rows_are_what_fit_and_measure_say(done):
    """The same training, written out by hand."""
    d = data.digits()
    net = nets.mlp([64, 20, 10], activation="sigmoid", output="softmax",
                   rng=np.random.default_rng([5, 0]))  # fmt: skip
    rule = rules.KolenPollack(net, rng=np.random.default_rng([5, 1]))
    seen = []

    def probe(net, epoch):
        seen.append(measure.angle(net.layers[1].weight, rule.B1))
        return {}

    both = [*net.parameters(), *rule.parameters()]
    sgd = torch.optim.SGD(both, lr=0.3, momentum=0.5, weight_decay=1e-3)
    past = train.fit(net, rule, d, epochs=3, batch_size=50, optimizer=sgd, probe=probe,
                     rng=np.random.default_rng([5, 2]), progress=False)  # fmt: skip
    mine = [r for r in rows(done) if (r["arm"], r["seed"]) == ("learned back", "5")]
    assert [r["test_error"] for r in mine] == [f"{e:.6g}" for e in past["test_error"]]
    assert [r["train_loss"] for r in mine[1:]] == [f"{e:.6g}" for e in past["train_loss"][1:]]
    assert mine[0]["train_loss"] == ""
    assert [r["feedback_1"] for r in mine] == [f"{a:.6g}" for a in seen]
    assert mine[-1]["weights"] == nets.fingerprint(net)
    rule(net, d.x_train[:100], d.y_train[:100])
    step = measure.gradients(net)
    rules.Backprop(net)(net, d.x_train[:100], d.y_train[:100])
    angles = measure.angles(step, measure.gradients(net))
    assert [mine[-1]["angle_0"], mine[-1]["angle_1"]] == [f"{a:.6g}" for a in angles]


def test_measuring_leaves_no_mark_on_what_a_rule_draws(done):
    """The rule that draws at every step, trained without a look at its angles."""
    it = file.read(done)
    net, rule, adam = training.build(it, "shaken", 3)
    past = train.fit(net, rule, training.load_data(it), epochs=3, batch_size=50, optimizer=adam,
                     rng=np.random.default_rng([3, 2]), progress=False)  # fmt: skip
    mine = [r for r in rows(done) if (r["arm"], r["seed"]) == ("shaken", "3")]
    assert [r["train_loss"] for r in mine[1:]] == [f"{e:.6g}" for e in past["train_loss"][1:]]


def test_arms_share_initial_weights_and_seeds_do_not(done):
    first = [r for r in rows(done) if r["epoch"] == "0"]
    assert [len({r["weights"] for r in first if r["seed"] == s}) for s in "35"] == [1, 1]
    assert len({r["weights"] for r in first}) == 2


def test_provenance_says_how_and_names_no_machine(done):
    text = (done.with_suffix("") / "provenance.json").read_text()
    made = json.loads(text)
    assert made["settings"]["epochs"] == 3 and made["settings"]["dtype"] == "float32"
    assert made["rows"] == 24 and made["processes"] == 1 and made["device"] == "cpu"
    assert made["lib_sha256"] == [store.lib_sha256()]
    assert made["data_sha256"] == {"digits": store.data_sha256(data.digits())}
    assert made["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(made["machine"]) == {"cpu", "threads"}
    assert os.uname().nodename not in text and str(done.parent) not in text


def test_the_hash_of_data_ignores_rounding_and_sees_a_changed_label():
    d = data.digits()
    same = SimpleNamespace(**vars(d) | {"x_train": d.x_train * (1 + 1e-7)})
    assert store.data_sha256(same) == store.data_sha256(d)
    labels = d.y_train.clone()
    labels[7] = (labels[7] + 1) % 10
    assert store.data_sha256(SimpleNamespace(**vars(d) | {"y_train": labels})) != (
        store.data_sha256(d)
    )


def test_load_gives_columns_and_says_which_there_are(done):
    found = runs.load(done)
    assert len(found.rows) == 24 and len(found.where(arm="backprop", seed=3)) == 4
    errors = found.column("test_error", epoch=3, arm="backprop")
    assert errors.shape == (2,) and errors.max() < 0.2
    assert np.isnan(found.column("train_loss", epoch=0)).all()
    with pytest.raises(ValueError, match="no column 'rule'; there are arm, seed, epoch"):
        found.column("test_error", rule="backprop")


def test_nothing_is_left_but_the_result_and_a_complete_run_is_left_alone(done, capsys):
    assert sorted(p.name for p in done.with_suffix("").iterdir()) == (
        ["provenance.json", "results.csv"]
    )
    assert not file.read(done).work.exists()
    before = (done.with_suffix("") / "results.csv").stat().st_mtime_ns
    assert main(["run", str(done)]) == 0
    assert "is complete, nothing to do" in capsys.readouterr().out
    assert (done.with_suffix("") / "results.csv").stat().st_mtime_ns == before


def test_an_arm_that_diverges_ends_with_an_infinite_loss(tmp_path):
    arm = '[arms.hot]\nrule = "backprop"\nlr = 1e30\nsource = "ours"\n'
    path = write(tmp_path, HEAD + arm)
    runs.run(path, progress=False)
    assert [(r["seed"], r["epoch"], r["train_loss"]) for r in rows(path)] == (
        [("3", "0", ""), ("3", "1", "inf"), ("5", "0", ""), ("5", "1", "inf")]
    )
    assert compare.verify(path)[0] == "same"
    assert "diverged" in runs.show(path)


def test_held_out_puts_the_last_training_examples_in_the_test_sets_place(tmp_path):
    path = write(tmp_path, swap={'name = "digits"': 'name = "digits"\nheld_out = 97'})
    d, whole = training.load_data(file.read(path)), data.digits()
    assert torch.equal(d.x_train, whole.x_train[:1200])
    assert torch.equal(d.x_test, whole.x_train[1200:])
    assert torch.equal(d.y_test, whole.y_train[1200:])


# --- stopping and going on


def test_a_run_killed_at_random_moments_ends_with_the_same_rows(done, tmp_path):
    whole = write(tmp_path / "whole")
    began = time.monotonic()
    assert wait(child(whole)) == 0
    took = time.monotonic() - began
    path, rng, kills = write(tmp_path / "killed"), np.random.default_rng(0), 0
    while not (path.with_suffix("") / "provenance.json").exists():
        pid = child(path)
        time.sleep(rng.uniform(0, took / 2))
        os.kill(pid, signal.SIGKILL)
        kills += wait(pid) == -signal.SIGKILL
    assert kills >= 2
    assert rows(path) == rows(whole) == rows(done)


def dies_at_its_next_step(path: Path, *, after: bool):
    """For ``child``: the process kills itself just before or after it renames its first news."""

    def prepare():
        rename, result = os.replace, path.with_suffix("") / "results.csv"
        left = [4 + result.exists()]  # .try in two folders, what is run; the table, then its origin

        def mortal(old, new):
            left[0] -= 1
            if left[0] == 0 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(old, new)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = mortal

    return prepare


def test_killed_after_every_single_step_it_still_comes_to_the_same_end(done, tmp_path):
    path, lives = write(tmp_path), 0
    while wait(child(path, prepare=dies_at_its_next_step(path, after=True))) == -signal.SIGKILL:
        lives += 1
    assert lives == 3 * 2 * 4 + 2  # a state for each row, the table, its provenance
    assert rows(path) == rows(done)
    assert not file.read(path).work.exists()


def test_a_kill_just_before_a_step_is_written_costs_that_step_only(done, tmp_path):
    path = write(tmp_path)
    killed = child(path, prepare=dies_at_its_next_step(path, after=False))
    assert wait(killed) == -signal.SIGKILL
    assert list(tmp_path.rglob("*.part"))
    assert wait(child(path)) == 0
    assert rows(path) == rows(done)
    assert not list(path.with_suffix("").glob(".*")) and not list(tmp_path.rglob("*.part"))


PHASES = [  # what is called next when the process dies: (object, name, at which call)
    (file, "read", 1),
    (work, "_writing", 1),
    (work, "_begin", 1),
    (work.training, "ready", 1),
    (train, "fit", 1),
    (measure, "gradients", 5),
    (torch, "save", 3),
    (os, "fsync", 8),
    (os, "replace", 12),
    (work, "_publish", 1),
    (work, "as_table", 1),
    (work, "as_json", 2),
    (shutil, "rmtree", 1),
]


def dies_in(owner, name: str, call: int):
    """For ``child``: the process kills itself as it calls this the so-many-th time."""

    def prepare():
        real, left = getattr(owner, name), [call]

        def mortal(*args, **how):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **how)

        setattr(owner, name, mortal)

    return prepare


def test_killed_in_every_phase_in_turn_nothing_is_lost(done, tmp_path):
    path, kept = write(tmp_path), 0
    for phase in PHASES:
        assert wait(child(path, prepare=dies_in(*phase))) == -signal.SIGKILL, phase
        whole = [(path.with_suffix("") / n).exists() for n in ("results.csv", "provenance.json")]
        if not all(whole):  # half a result is none
            with pytest.raises(FileNotFoundError, match="small has no stored result"):
                runs.load(path)
        states = len(list(file.read(path).work.glob("*.pt")))
        assert states >= kept or all(whole), phase
        kept = states
    assert wait(child(path)) == 0
    assert rows(path) == rows(done)
    assert not file.read(path).work.exists() and not list(tmp_path.rglob("*.part"))


def test_a_disk_that_fills_up_on_the_way_costs_one_epoch(done, tmp_path, monkeypatch, capsys):
    """From the sixth call of fit on, a file of this process may have 4,000 bytes."""
    path, fit, calls = write(tmp_path), train.fit, []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def filling(*args, **how):
        calls.append(how["epochs"])
        if len(calls) == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
        return fit(*args, **how)

    monkeypatch.setattr(train, "fit", filling)
    try:
        assert main(["run", str(path)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    words = capsys.readouterr().err
    assert "File too large: '" in words and "backprop 5.pt'" in words
    assert "what is done is kept: make room, and the same command goes on from there" in words
    assert not list(tmp_path.rglob("*.part"))
    assert main(["run", str(path)]) == 0
    assert rows(path) == rows(done)
    assert len(calls) == 24 + 1


def test_any_flipped_bit_of_a_kept_state_is_seen(tmp_path):
    """Without its checksum two of three would be read as other weights."""
    path, rng = write(tmp_path / "a"), np.random.default_rng(0)
    assert wait(child(path, prepare=dies_at_its_next_step(path, after=True))) == -signal.SIGKILL
    state = file.read(path).work / "backprop 3.pt"
    good = state.read_bytes()
    assert training._read(state, torch.load(io.BytesIO(store.unseal(state)))["settings"])
    for at in [0, 6, 7, 40, *rng.integers(0, len(good), 25)]:
        bad = bytearray(good)
        bad[at] ^= 1 << rng.integers(8)
        state.write_bytes(bad)
        with pytest.raises(ValueError, match=r"backprop 3.pt is damaged .* its epochs are redone"):
            training._read(state, {})
    path = scripted(tmp_path / "b")
    assert wait(child(path, prepare=dies_at_its_next_step(path, after=True))) == -signal.SIGKILL
    state = file.read(path).work / "rows.json"
    good = state.read_bytes()
    for at in rng.integers(0, len(good), 6):
        state.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        with pytest.raises(ValueError, match=r"rows.json is damaged .* its jobs are redone"):
            runs.run(path, progress=False)
        state.write_bytes(good[:at])
        with pytest.raises(ValueError, match=r"rows.json is damaged .* its jobs are redone"):
            runs.run(path, progress=False)
    state.unlink()  # as it says
    runs.run(path, progress=False)
    assert len(rows(path)) == 10


def test_a_state_from_before_states_were_sealed_goes_on(done, tmp_path):
    path = write(tmp_path)
    assert wait(child(path, prepare=dies_at_its_next_step(path, after=True))) == -signal.SIGKILL
    state = file.read(path).work / "backprop 3.pt"
    state.write_bytes(store.unseal(state))
    runs.run(path, progress=False)
    assert rows(path) == rows(done)


def test_damaged_notes_of_a_run_are_named(done, tmp_path, untrained):
    path = write(tmp_path / "a")
    begun = file.read(path).work / "begun.json"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(b'{"settings": {"see')
    with pytest.raises(ValueError, match=r"begun.json is damaged .*: delete it, and what is"):
        runs.run(path, progress=False)
    path = copied(done, tmp_path / "b")
    about = path.with_suffix("") / "provenance.json"
    about.write_bytes(about.read_bytes()[:100] + b"\xff" + about.read_bytes()[101:])
    with pytest.raises(ValueError, match=r"provenance.json is damaged .*: restore it, or move"):
        runs.load(path)


def test_every_arm_goes_on_from_its_last_epoch_bit_by_bit(done, tmp_path, monkeypatch):
    """Stopped by an exception after each epoch; no epoch is trained twice."""
    path, fit, trained = write(tmp_path), train.fit, []

    def once(*args, **how):
        if trained and trained[-1] is None:
            raise KeyboardInterrupt
        trained.append((how["start"], how["epochs"]))
        past = fit(*args, **how)
        trained.append(None)
        return past

    monkeypatch.setattr(train, "fit", once)
    while main(["run", str(path)]) == 130:
        trained.pop()
    assert rows(path) == rows(done)
    whole = [(0, 0), (0, 1), (1, 2), (2, 3)]
    assert [t for t in trained if t] == whole * 6


def test_stopping_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "fit", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["run", str(write(tmp_path))]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a"
    store.write(path, b"old")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.write(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_damaged_state_is_named(tmp_path, monkeypatch):
    path = write(tmp_path)
    work_folder = file.read(path).work
    work_folder.mkdir(parents=True)
    (work_folder / "backprop 3.pt").write_bytes(b"half a fi")
    with pytest.raises(ValueError, match=r"backprop 3.pt is damaged .* delete it"):
        runs.run(path, progress=False)


# --- two runs, and no room


def test_two_runs_into_one_result_refuse_each_other(tmp_path, capsys, monkeypatch):
    path = write(tmp_path, swap={"epochs = 3": "epochs = 3000"})
    pid = child(path)
    try:
        state = file.read(path).work / "backprop 3.pt"
        while not state.exists():
            time.sleep(0.01)
        monkeypatch.setattr(training, "do", lambda *a: pytest.fail("two at once"))
        assert main(["run", str(path)]) == 2
        assert f"process {pid} is at work on small" in capsys.readouterr().err
    finally:
        os.kill(pid, signal.SIGKILL)
        wait(pid)
    with work._writing(file.read(path)):  # the dead one's lock is no obstacle
        pass


def test_the_lock_of_a_dead_process_is_no_obstacle(tmp_path):
    path = write(tmp_path, swap={"epochs = 3": "epochs = 1"})
    lock = file.read(path).work.with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    wait(pid)
    lock.write_text(str(pid))
    runs.run(path, progress=False)
    assert len(rows(path)) == 12


@pytest.fixture
def untrained(monkeypatch):
    """Training fails the test."""
    monkeypatch.setattr(training, "do", lambda *a: pytest.fail("it trained"))


def test_a_folder_that_cannot_be_written_is_reported_before_training(tmp_path, untrained, capsys):
    path = write(tmp_path)
    (tmp_path / "small").write_text("a file where the folder should be")
    assert main(["run", str(path)]) == 2
    assert "nothing was run" in capsys.readouterr().err


def test_a_read_only_folder_is_reported_before_training(tmp_path, untrained):
    path = write(tmp_path)
    (tmp_path / "small").mkdir()
    me = os.geteuid()
    if me == 0:  # root may write anywhere: be nobody for a moment
        for folder in (tmp_path, *tmp_path.parents):
            if "pytest" in str(folder):
                folder.chmod(0o755)
        torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)  # what it imports, nobody may
        os.seteuid(65534)
    else:
        (tmp_path / "small").chmod(0o555)
    try:
        words = r"cannot write in .*small \(Permission denied\); nothing was run"
        with pytest.raises(OSError, match=words):
            runs.run(path, progress=False)
    finally:
        os.seteuid(me)
        (tmp_path / "small").chmod(0o755)


def test_a_full_disk_is_reported_before_training(tmp_path, untrained, monkeypatch):
    usage = SimpleNamespace(free=49_000_000)
    monkeypatch.setattr(work.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match=r"is full: 50 MB are needed, 49 MB free; nothing was run"):
        runs.run(write(tmp_path), progress=False)


# --- what is refused


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("epochs = 3", "epoch = 3", r"small.toml: unknown key 'epoch'; did you mean 'epochs'\? al"),
        ("epochs = 3", "", "small.toml: the key 'epochs' is missing"),
        ("epochs = 3", "epochs = 3.0", "epochs must be a whole number of 1 or more, found 3.0"),
        ("epochs = 3", "epochs = true", "epochs must be a whole number of 1 or more, found True"),
        ("seeds = [3, 5]", "seeds = [3, 3]", r"seeds must be a list of different .* \[3, 3\]"),
        ("seeds = [3, 5]", "seeds = 3", "seeds must be a list of different whole numbers"),
        ("seeds = [3, 5]", "seeds = [3", "small.toml is not valid TOML: .*line 5"),
        ("angles = 100", 'dtype = "half"', "dtype must be one of float32, float64, found 'half'"),
        ('name = "digits"', 'name = "digit"', r"\[data\]: name must be one of xor, .* 'digit'"),
        ('name = "digits"', 'name = "digits"\nsed = 1', r"unknown key 'sed'; did you mean 'seed'"),
        ('name = "digits"', 'name = "digits"\nheld_out = 0', r"held_out must be a whole number"),
        ('name = "digits"', 'name = "digits"\nheld_out = 1297', "held_out must be below 1297"),
        ('kind = "mlp"', 'kind = "mpl"', r"\[net\]: kind must be one of mlp, convnet, residual"),
        ("sizes =", "size =", r"\[net\]: unknown key 'size'; did you mean 'sizes'"),
        ('"sigmoid"', '"sigmoyd"', r"\[arms.backprop\] or \[net\]: unknown activation 'sigmoyd'"),
        ('"sigmoid"', "7", r"\[net\]: unknown activation 7"),
        ("64, 20", "64.5, 20", r"\[net\]: expected two or more positive whole sizes"),
        ("64, 20", "63, 20", r"\[net\] does not fit \[data\]: .* shape \(n, 63\) for this net"),
        ("20, 10", "20, 9", r"\[net\] does not fit \[data\]: expected class numbers from 0 to 8"),
        ("batch_size = 50", "batch_size = 1298", "batch_size must be at most 1297"),
        ('"kolen-pollack"', '"kolen"', r"\[arms.learned back\]: rule must be one of .* 'kolen'"),
        ("momentum = 0.9", "momentum = 1", r"momentum must be a number from 0 to below 1, found"),
        ("lr = 0.01", "lr = 0.01\nmomentum = 0.9", r"\[arms.shaken\]: unknown key 'momentum'"),
        ("lr = 0.01", "lr = 0", r"\[arms.shaken\]: lr must be a number above 0, found 0"),
        ("lr = 0.01", 'lr = "fast"', r"lr must be a number above 0, found 'fast'"),
        ("{sigma = 0.01}", "{sgma = 0.01}", r"options: unknown key 'sgma'; did you mean 'sigma'"),
        ("{sigma = 0.01}", "{sigma = -1}", r"\[arms.shaken\] .* expected a finite sigma above 0"),
        ("options = {sigma = 0.01}", "", r"\[arms.shaken\] .* 'sigma'"),
        ('source = "ours"\n\n[arms."l', '\n[arms."l', "the key 'source' is missing"),
        ("[arms.backprop]", '[arms."a/b"]', "an arm's name has letters, digits, spaces"),
        ("[arms.backprop]", "[published]", "published must be a list of tables"),
        ("[arms.backprop]", '[[published]]\nwhat = "x"\n[arms.backprop]', "'value' is missing"),
    ],
)
def test_what_cannot_be_run_is_one_clear_error(tmp_path, untrained, old, new, words, monkeypatch):
    monkeypatch.setattr(training, "train_one", lambda *a, **k: pytest.fail("it trained"))
    monkeypatch.setattr(training, "do", DO)
    path = write(tmp_path, swap={old: new})
    with pytest.raises(ValueError, match=words) as caught:
        runs.run(path, progress=False)
    assert "small.toml" in str(caught.value)
    assert not (tmp_path / "small" / "results.csv").exists()


DO = training.do


def test_a_file_or_a_result_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["run", str(tmp_path / "none.toml")]) == 2
    assert "there is no" in capsys.readouterr().err
    assert main(["show", "nosuchrun"]) == 2
    assert "stored runs: " in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="small has no stored result: python -m"):
        runs.load(write(tmp_path))
    with pytest.raises(ValueError, match="small has no script"):
        runs.script(write(tmp_path))


def test_a_result_of_other_settings_is_refused(done, tmp_path, capsys):
    path = copied(done, tmp_path)
    path.write_text(TOML.replace("lr = 0.01", "lr = 0.02").replace("epochs = 3", "epochs = 4"))
    words = "epochs: 3 there, 4 now; arms.shaken.lr: 0.01 there, 0.02 now"
    with pytest.raises(ValueError, match=words):
        runs.load(path)
    assert main(["run", str(path)]) == 2 and words in capsys.readouterr().err
    path.write_text(TOML.replace("nothing was tuned", "other words").replace("ours", "theirs"))
    assert len(runs.load(path).rows) == 24


def test_unfinished_work_of_other_settings_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path)
    with monkeypatch.context() as m:
        m.setattr(training, "do", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(["run", str(path)]) == 130
    path.write_text(TOML.replace("epochs = 3", "epochs = 4"))
    with pytest.raises(ValueError, match=r"unfinished run of small .*epochs: 3 there, 4 now"):
        runs.run(path, progress=False)


def test_an_unfinished_run_takes_more_seeds_but_no_other_rate(done, tmp_path):
    path = write(tmp_path, swap={"seeds = [3, 5]": "seeds = [3]"})
    assert wait(child(path, prepare=dies_at_its_next_step(path, after=True))) == -signal.SIGKILL
    good = path.read_text().replace("seeds = [3]", "seeds = [3, 5]")
    path.write_text(good.replace("lr = 0.3", "lr = 0.2"))
    with pytest.raises(ValueError, match=r"backprop 3.pt .* \(arm.lr: 0.3 there, 0.2 now\)"):
        runs.run(path, progress=False)
    path.write_text(good)
    runs.run(path, progress=False)
    assert rows(path) == rows(done)


def test_a_gpu_that_is_not_there_is_reported(tmp_path, untrained, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["run", str(write(tmp_path)), "--device", "cuda"]) == 2
    assert "--device cuda: expected a GPU for each process here, found 0" in capsys.readouterr().err


# --- a run with a script


def test_a_script_s_rows_are_stored_in_the_plan_s_order(tmp_path):
    path = scripted(tmp_path)
    runs.run(path, progress=False)
    found = [(r["task"], r["rate"], r["seed"], r["score"]) for r in rows(path)]
    part = [("0.1", "1", "0.0333333"), ("0.3", "1", "0.1")]
    part += [("0.3", "2", "0.2"), ("0.3", "3", "0.3"), ("0.3", "4", "0.4")]
    assert found == [(task, *row) for task in "ba" for row in part]
    made = runs.load(path).provenance
    assert made["script_sha256"] == store.sha256((tmp_path / "jobs" / "run.py").read_bytes())
    assert runs.script(path).KEY == 3


def test_a_script_goes_on_where_it_was_killed_and_repeats_no_job(tmp_path):
    whole, path = scripted(tmp_path / "a"), scripted(tmp_path / "b")
    runs.run(whole, progress=False)
    lives = 0
    while wait(child(path, prepare=dies_at_its_next_step(path, after=True))) == -signal.SIGKILL:
        lives += 1
    assert lives == 12  # ten jobs, the table, its provenance
    assert rows(path) == rows(whole)
    calls = [p.with_suffix("").joinpath("calls").read_text() for p in (path, whole)]
    assert calls[0] == calls[1] and calls[0].count("\n") == 10


def test_a_script_changed_on_the_way_is_refused(tmp_path, monkeypatch):
    path = scripted(tmp_path)
    with monkeypatch.context() as m:
        m.setattr(work.jobs, "do", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(["run", str(path)]) == 130
    scripted(tmp_path, SCRIPT + "# another\n")
    with pytest.raises(ValueError, match=r"unfinished run of jobs .*script_sha256"):
        runs.run(path, progress=False)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("KEY = 3", "", "defines COLUMNS, KEY, job and plan; KEY is missing"),
        ('{"score"', '{"scores"', r"job gave \['seconds', 'task', 'rate', 'seed', 'scores'\]"),
        ("get(task, best, seed)", "get(task, best)", r"a key has 3 parts, found \('b', 0.3\)"),
    ],
)
def test_a_script_that_does_not_fit_is_named(tmp_path, old, new, words):
    path = scripted(tmp_path, SCRIPT.replace(old, new))
    with pytest.raises(ValueError, match=words):
        runs.run(path, progress=False)


def test_a_script_that_is_not_there_is_named(tmp_path):
    path = scripted(tmp_path)
    (tmp_path / "jobs" / "run.py").unlink()
    with pytest.raises(ValueError, match=r"jobs.toml: script: no run.py in jobs/"):
        file.read(path)


MANY = """
COLUMNS, KEY, MANY = ["seed", "step", "value"], 1, True
def job(seed):
    return [{"step": s, "value": seed + s / 7} for s in range(3)]
def plan(get):
    assert [row["step"] for row in get(1)] == ["0", "1", "2"]
    get(2)
"""


def test_a_job_may_give_many_rows(tmp_path):
    path = scripted(tmp_path, MANY)
    runs.run(path, progress=False)
    assert [(r["seed"], r["step"]) for r in rows(path)] == [(s, t) for s in "12" for t in "012"]
    assert compare.verify(path)[0] == "same"
    tamper(path, lambda stored: stored[5].update(value="9"))
    assert compare.verify(path)[0] == "differs"


def test_a_long_job_is_verified_by_its_beginning(tmp_path):
    first = 'def first(seed):\n    return [{"step": 0, "value": seed * 1.0}]\n'
    path = scripted(tmp_path, MANY + first)
    runs.run(path, progress=False)
    assert compare.verify(path)[0] == "same"
    tamper(path, lambda stored: [r.update(value="9") for r in stored if r["step"] != "0"] and None)
    assert compare.verify(path)[0] == "same"  # it looks at the beginning only
    tamper(path, lambda stored: [r.update(value="9") for r in stored] and None)
    assert compare.verify(path)[0] == "differs"


# --- verify, show, list


def test_verify_passes_on_what_was_stored(done, capsys):
    assert main(["verify", str(done)]) == 0
    assert "same: first epoch of backprop, learned back, shaken, seed 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("column", "epoch", "value"),
    [("test_error", 1, "0.5"), ("train_loss", 1, "0.9"), ("test_loss", 0, "2.2"),
     ("angle_0", 1, "80"), ("feedback_1", 0, "60"), ("angle_1", 1, "")],
)  # fmt: skip
def test_verify_fails_on_a_tampered_row(done, tmp_path, column, epoch, value, capsys):
    path = copied(done, tmp_path)
    tamper(path, lambda rows: rows[8 + epoch].update({column: value}))
    assert main(["verify", str(path)]) == 1
    assert f"learned back, seed 3, epoch {epoch}, {column}: stored {value}, " in (
        capsys.readouterr().out
    )


def test_where_an_epoch_takes_too_long_verify_looks_before_training(done, tmp_path):
    path = copied(done, tmp_path)
    tamper(path, lambda rows: rows[1].update(seconds="41", test_error="0.9"))
    words = "first epoch of backprop (before training), learned back, shaken, seed 3"
    assert compare.verify(path) == ("same", words)
    tamper(path, lambda rows: rows[0].update(test_error="0.5"))
    assert compare.verify(path)[0] == "differs"


@pytest.mark.parametrize(("factor", "state"), [(1.003, "differs"), (1.0005, "same")])
def test_before_training_a_thousandth_is_allowed(done, tmp_path, factor, state):
    path = copied(done, tmp_path)
    tamper(path, lambda rows: rows[0].update(test_loss=f"{float(rows[0]['test_loss']) * factor}"))
    assert compare.verify(path)[0] == state


@pytest.mark.parametrize(("moves", "state"), [(0.0, "differs"), (0.01, "differs"), (0.03, "same")])
def test_where_rounding_moves_an_epoch_far_verify_allows_for_it(done, monkeypatch, moves, state):
    """Recomputed errors are 0.1 off; a jolt moves them by ``moves``: five times that is allowed."""
    train_one = training.train_one

    def elsewhere(*args, jolt=0.0, **how):
        found = train_one(*args, **how)
        found[1]["test_error"] = str(float(found[1]["test_error"]) + 0.1 + moves * (jolt > 0))
        return found

    monkeypatch.setattr(compare, "train_one", elsewhere)
    assert compare.verify(done)[0] == state


def test_a_jolt_is_a_last_digit_and_no_more(done):
    it = file.read(done)
    d, how = training.load_data(it), {"epochs": 1, "c": crew.Crew()}
    still, moved = (training.train_one(it, "backprop", 3, d, jolt=j, **how) for j in (0, 1e-7))
    assert still[0]["weights"] == rows(done)[0]["weights"] != moved[0]["weights"]
    assert compare._farthest(still[0], moved[0])[1] < 0.01
    assert compare._farthest(still[1], moved[1])[1] < 0.5


def test_a_run_that_diverged_in_the_store_alone_differs(done, tmp_path):
    path = copied(done, tmp_path)
    tamper(path, lambda rows: rows[1].update(train_loss="inf"))
    assert compare.verify(path)[0] == "differs"


def test_verify_sees_any_edit_by_the_hash_and_a_missing_row(done, tmp_path):
    path = copied(done, tmp_path / "a")
    tamper(path, lambda rows: rows[-1].update(test_error="0.01"), honest_hash=False)
    state, words = compare.verify(path)
    assert state == "differs" and "results are never edited" in words
    path = copied(done, tmp_path / "b")
    tamper(path, lambda rows: rows[:-1])
    assert compare.verify(path) == ("differs", "shaken, seed 5: 3 rows, expected 4")


def test_verify_of_a_script_recomputes_rows_and_walks_the_plan(tmp_path):
    path = scripted(tmp_path)
    runs.run(path, progress=False)
    assert compare.verify(path)[0] == "same"
    right = (path.with_suffix("") / "results.csv").read_bytes()
    tamper(path, lambda rows: [r.update(score=f"{float(r['score']) * 1.01:.6g}") for r in rows]
           and None)  # fmt: skip
    assert compare.verify(path)[0] == "differs"
    (path.with_suffix("") / "results.csv").write_bytes(right)
    tamper(path, lambda rows: rows[:-1])
    assert compare.verify(path) == (
        "differs", "the plan asks for ('a', '0.3', '4'), which is not stored"
    )  # fmt: skip
    (path.with_suffix("") / "results.csv").write_bytes(right)
    tamper(path, lambda rows: [*rows, rows[-1] | {"seed": "9"}])
    assert "1 stored jobs are not in the plan" in compare.verify(path)[1]


def test_a_script_says_itself_what_counts_as_the_same(tmp_path):
    same = "def same(stored, again):\n    return abs(float(stored['score'])) < 5\n"
    path = scripted(tmp_path, SCRIPT + same)
    runs.run(path, progress=False)
    tamper(path, lambda rows: [r.update(score=f"{float(r['score']) * 1.01:.6g}") for r in rows]
           and None)  # fmt: skip
    assert compare.verify(path)[0] == "same"  # a hundredth: too much where a script says nothing
    tamper(path, lambda rows: [r.update(score=str(5 + i)) for i, r in enumerate(rows)] and None)
    assert compare.verify(path)[0] == "differs"


def test_verify_skips_where_the_data_are_out_of_reach(done, monkeypatch, capsys, tmp_path):
    def gone(name, **options):
        raise FileNotFoundError("digits is nowhere\nat all")

    monkeypatch.setattr(data, "load", gone)
    assert main(["verify", str(done)]) == 0
    assert capsys.readouterr().out.strip().endswith("skipped: digits is nowhere")
    path = scripted(tmp_path)
    runs.run(path, progress=False)
    calls = tmp_path / "jobs" / "calls"
    calls.unlink()
    calls.parent.chmod(0o755)
    nothing = SCRIPT.replace("    assert", '    raise FileNotFoundError("no data")\n    assert')
    (tmp_path / "jobs" / "run.py").write_text(nothing)
    assert compare.verify(path) == ("skipped", "no data")


def test_verify_notices_other_data(done, tmp_path):
    path = copied(done, tmp_path)
    about = path.with_suffix("") / "provenance.json"
    made = json.loads(about.read_text())
    made["data_sha256"]["digits"] = "0" * 64
    about.write_text(json.dumps(made))
    assert compare.verify(path) == (
        "differs", "the data digits are not those the result was made with"
    )  # fmt: skip


def test_show_puts_published_beside_measured(done, tmp_path):
    more = (
        '[[published]]\nwhat = "error of backprop"\nvalue = 0.03\ncite = "a paper"\ntag = "TEXT"\n'
        'column = "test_error"\nwhere = {arm = "backprop"}\n'
        '[[published]]\nwhat = "error of shaken"\nvalue = "not available"\ncite = "-"\n'
        'tag = "none"\n'
    )
    path = copied(done, tmp_path)
    path.write_text(TOML + more)
    text = runs.show(path)
    mean = runs.load(path).column("test_error", arm="backprop", epoch=3).mean()
    assert f"published 0.03  (a paper) [TEXT]\n  measured  {mean:.3g}, n = 2" in text
    assert "published not available" in text
    assert text.startswith("digits, small\nnothing was tuned\n24 rows, ")
    assert "after epoch 3, seeds [3, 5]:" in text and "feedback_1" in text


def test_list_says_what_is_there_and_what_is_refused(done, tmp_path):
    copied(done, tmp_path)
    write(tmp_path, TOML, "fresh")
    write(tmp_path, TOML.replace("epochs", "epoch"), "wrong")
    lines = compare.listing(tmp_path).splitlines()
    assert [line.split()[0] for line in lines] == ["fresh", "small", "wrong"]
    assert "not run" in lines[0] and "24 rows" in lines[1] and "refused: wrong.toml" in lines[2]
    assert compare.listing(tmp_path / "small") == f"no runs in {tmp_path / 'small'}"


def test_progress_is_shown_when_asked_for(tmp_path, capsys):
    path = write(tmp_path, swap={"epochs = 3": "epochs = 1"})
    runs.run(path, progress=True)
    err = capsys.readouterr().err
    assert "100%" in err and "12/12" in err and "shaken, seed 5" in err and "error=0." in err


# --- several processes

WORKER = """
import sys, torch, torch.distributed as dist
from lib import data
from lib.runs import file, training
from lib.runs.__main__ import main
from lib.runs.crew import Shards, crew
torch.set_num_threads(1)
dist.init_process_group("gloo")
out = {}
with crew() as c:
    for path in sys.argv[3:]:
        it = file.read(path)
        d = training.load_data(it)
        for arm in it.settings["arms"]:
            net, rule, opt = training.build(it, arm, 0)
            step = Shards(rule, c.rank, c.size)
            for i in range(101):  # odd batches, and at times one that only one process sees
                n = 1 if i % 10 == 9 else 33
                at = slice(11 * i, 11 * i + n)
                loss = step(net, d.x_train[at], d.y_train[at])
                opt.step()
            out[path, arm] = [p.detach() for p in (*net.parameters(), *rule.parameters())], loss
if c.rank == 0:
    torch.save(out, sys.argv[1])
assert main(["run", sys.argv[2]]) == 0
dist.destroy_process_group()
"""


def arms(names: tuple[str, ...]) -> str:
    text = ""
    for rule in names:
        text += f'[arms."{rule}"]\nrule = "{rule}"\nlr = 0.05\nmomentum = 0.9\nsource = "ours"\n'
        text += {"kolen-pollack": "weight_decay = 1e-3\n"}.get(rule, "")
        text += {"kickback": 'options = {above = "head"}\n'}.get(rule, "")
    return text


HEAD = TOML[: TOML.index("[arms.backprop]")].replace('"sigmoid"', '"relu"')


def torchrun(*command: str) -> str:
    """Two processes on this machine."""
    head = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    address = ["--master-addr", "127.0.0.1", "--master-port", "0", "--rdzv-backend", "c10d"]
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'tests' / 'offline'}:{ROOT}"}
    env |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    address += ["--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"]
    run = subprocess.run([*head, *address, *command], capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def test_two_processes_take_the_steps_of_one(tmp_path):
    """Parameters, the rule's own included, after 101 steps; and a whole run's rows.

    In float64 for every rule. In float32 with smooth units: a kink amplifies rounding at once.
    """
    exact = {"angles = 100": 'dtype = "float64"', "seeds = [3, 5]": "seeds = [3]"}
    smooth = arms(("backprop", "feedback alignment", "kolen-pollack"))
    one = write(tmp_path / "one", HEAD + arms(crew.SPLITS), swap=exact)
    two = write(tmp_path / "two", HEAD + arms(crew.SPLITS), swap=exact)
    single = write(tmp_path, TOML[: TOML.index("[arms.backprop]")] + smooth)
    (tmp_path / "worker.py").write_text(WORKER)
    torchrun(*(str(tmp_path / n) for n in ("worker.py", "out.pt")), str(two), str(single), str(one))
    found = torch.load(tmp_path / "out.pt")
    for path, limit in ((single, 1e-6), (one, 1e-12)):
        it = file.read(path)
        d = training.load_data(it)
        for arm in it.settings["arms"]:
            net, rule, opt = training.build(it, arm, 0)
            start = [p.detach().clone() for p in net.parameters()]
            for i in range(101):
                at = slice(11 * i, 11 * i + (1 if i % 10 == 9 else 33))
                loss = rule(net, d.x_train[at], d.y_train[at])
                opt.step()
            theirs, last = found[str(path), arm]
            mine = [p.detach() for p in (*net.parameters(), *rule.parameters())]
            off = [float((p - q).abs().max()) for p, q in zip(mine, theirs, strict=True)]
            assert max(off) < limit, (arm, off)
            assert float(loss) == pytest.approx(float(last), rel=1e3 * limit)
            assert max(float((p - q).abs().max()) for p, q in zip(start, mine, strict=False)) > 0.1
    runs.run(one, progress=False)
    a, b = runs.load(one), runs.load(two)
    assert b.provenance["processes"] == 2 and b.provenance["spread"] is False
    for x, y in zip(a.rows, b.rows, strict=True):
        for name in set(x) - {"seconds", "weights"}:  # texts of six digits
            close = x[name] == y[name] or float(x[name]) == pytest.approx(float(y[name]), rel=1e-5)
            assert close, (x, y, name)


def test_spread_seeds_give_the_rows_of_one_process(done, tmp_path):
    path = write(tmp_path)
    out = torchrun("-m", "lib.runs", "run", str(path), "--spread", "seeds")
    assert out.count("is complete") == 1
    assert rows(path) == rows(done)
    assert runs.load(path).provenance["spread"] is True


def test_batches_are_not_split_for_a_rule_that_draws(tmp_path):
    it = file.read(write(tmp_path))
    words = r"\[arms.shaken\]: batches cannot be split for 'node perturbation', .* --spread seeds"
    with pytest.raises(ValueError, match=words):
        training.ready(it, crew.Crew(0, 2))
    training.ready(it, crew.Crew(0, 2, spread=True))
    with pytest.raises(ValueError, match="a batch of 50 cannot be split over 51 processes"):
        training.ready(it, crew.Crew(0, 51))


def test_a_script_is_not_split(tmp_path):
    with pytest.raises(ValueError, match="jobs has a script: it runs as one process"):
        work.jobs.do(file.read(scripted(tmp_path)), crew.Crew(0, 2), True)


# --- the book's own


KNOWN: dict[str, tuple[data.Data, str]] = {}


def known(it) -> tuple[data.Data, str]:
    """A run's data and their hash; the next run's are often the same, and CIFAR-10 takes long."""
    asked = str((it.settings["dtype"], it.settings["data"]))
    if asked not in KNOWN:
        KNOWN.clear()
        d = training.load_data(it)
        KNOWN[asked] = d, store.data_sha256(d)
    return KNOWN[asked]


@pytest.mark.book
@pytest.mark.parametrize("path", sorted(file.HOME.glob("*.toml")), ids=lambda p: p.stem)
def test_every_stored_run_of_the_book_verifies(path, monkeypatch):
    if (file.read(path).work / "begun.json").exists():
        pytest.skip("this run is not finished")
    if DATA_FOLDER.is_dir():
        monkeypatch.setenv("BOOK_DATA", str(DATA_FOLDER))
    monkeypatch.setattr(compare, "LONG", 5.0)  # `verify` by hand looks further
    monkeypatch.setattr(compare, "LONGEST", 20.0)
    monkeypatch.setattr(compare, "load_data", lambda it: known(it)[0])
    monkeypatch.setattr(compare, "data_sha256", lambda d: known(file.read(path))[1])
    state, words = compare.verify(path)
    if state == "skipped" and ("BOOK_DATA" in words or "not in the cache" in words):
        pytest.skip(words)
    assert state == "same", words
