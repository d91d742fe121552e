"""lib.arm and its data sets: reference torques, mechanics, motions, SARCOS without a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import DATA_FOLDER
from scipy.io import savemat

from lib import arm, data

REFERENCE = np.loadtxt(
    Path(__file__).parent / "reference" / "arm_torques.csv", delimiter=",", skiprows=1
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def states(n=5, seed=0):
    return [rng(seed + i).normal(size=(n, 7)) for i in range(3)]


def test_reference_torques():
    q, qd, qdd, wanted = np.split(REFERENCE, 4, axis=1)
    assert len(q) == 40
    assert np.abs(arm.torques(q, qd, qdd) - wanted).max() < 1e-9


def test_rows_do_not_mix():
    q, qd, qdd = states()
    one = np.vstack([arm.torques(q[i : i + 1], qd[i : i + 1], qdd[i : i + 1]) for i in range(5)])
    assert np.allclose(one, arm.torques(q, qd, qdd), atol=1e-13)


def mass(q) -> np.ndarray:
    """The mass matrix, column by column: what a unit acceleration of each joint needs."""
    still = np.zeros_like(q)
    rest = arm.torques(q, still, still)
    unit = np.eye(7)
    return np.stack([arm.torques(q, still, still + unit[i]) - rest for i in range(7)], axis=2)


def test_mass_matrix_is_symmetric_and_positive():
    m = mass(states()[0])
    assert np.abs(m - m.transpose(0, 2, 1)).max() < 1e-12
    assert np.linalg.eigvalsh(m).min() > 0


def test_work_becomes_kinetic_energy():
    """qd . (torque - gravity) = d/dt (qd M qd / 2), by central differences along a motion."""
    q, qd, qdd = states()

    def energy(dt):
        v = qd + dt * qdd
        return 0.5 * np.einsum("ni,nij,nj->n", v, mass(q + dt * qd + dt**2 / 2 * qdd), v)

    still = np.zeros_like(q)
    power = (qd * (arm.torques(q, qd, qdd) - arm.torques(q, still, still))).sum(1)
    numeric = (energy(1e-5) - energy(-1e-5)) / 2e-5
    assert np.abs(power - numeric).max() < 1e-6 * np.abs(power).max()


def test_turning_the_base_changes_nothing():
    q, qd, qdd = states()
    turned = q + np.eye(7)[0] * 1.234
    assert np.allclose(arm.torques(q, qd, qdd), arm.torques(turned, qd, qdd), atol=1e-12)


def test_upright_arm_needs_no_torque_at_the_base():
    """Gravity is along the first joint's axis, so it never turns it."""
    q, still = states()[0], np.zeros((5, 7))
    assert np.abs(arm.torques(q, still, still)[:, 0]).max() < 1e-12


@pytest.mark.parametrize("bad", [(5, 6), (7,), (4, 7)])
def test_wrong_shapes(bad):
    q, qd, _ = states()
    with pytest.raises(ValueError, match=r"shape \(n, 7\), found \(5, 7\), \(5, 7\)"):
        arm.torques(q, qd, np.zeros(bad))


def test_friction_by_hand():
    f = arm.friction(np.array([[0.05] * 7, [-2.0] * 7, [0.0] * 7]))
    assert f[0, 0] == pytest.approx(0.9 * 0.05 + 1.5 * np.tanh(1))
    assert f[1, 6] == pytest.approx(-0.06 - 0.05) and not f[2].any()


def test_motions_are_exact_and_within_range():
    m = arm.motions(20, rows=3000, rng=rng())
    q, qd, qdd = np.split(m, 3, axis=2)
    assert m.shape == (20, 3000, 21)
    assert (q > arm.ARM["q_min"]).all() and (q < arm.ARM["q_max"]).all()
    dt = 3.0 / 3000
    for f, df in ((q, qd), (qd, qdd)):
        assert np.abs((f[:, 2:] - f[:, :-2]) / (2 * dt) - df[:, 1:-1]).max() < 1e-3
    assert (q.std(1) > 0).all() and np.ptp(q[:, 0], axis=0).min() > 0.1


# --- the data set


def test_robot_arm():
    one, two = (data.robot_arm(300, rng=rng(1)) for _ in range(2))
    assert [tuple(a.shape) for a in (one.x_train, one.y_train, one.x_test, one.y_test)] == [
        (300, 21),
        (300, 7),
        (150, 21),
        (150, 7),
    ]
    assert torch.equal(one.x_test, two.x_test) and one.n_classes == 0
    for a in (one.x_train, one.y_train):
        assert float(a.mean(0).abs().max()) < 1e-12
        assert float((a.std(0, unbiased=False) - 1).abs().max()) < 1e-12
    assert not torch.equal(one.x_train, data.robot_arm(300, rng=rng(2)).x_train)
    assert data.load("robot_arm", n=30, n_test=20, rng=rng(), dtype=torch.float32).x_test.shape == (
        20,
        21,
    )


def test_robot_arms_targets_are_torques_and_friction():
    """Undo the standardising with the training rows' own mean and deviation."""
    rows = arm.motions(20, rows=15, rng=rng(3)).reshape(-1, 21)
    q, qd, qdd = np.split(rows, 3, axis=1)
    y = arm.torques(q, qd, qdd) + arm.friction(qd)
    found = data.robot_arm(300, rng=rng(3)).y_train.numpy()
    assert np.abs(found * y.std(0) + y.mean(0) - y).max() < 1e-10


def test_one_joint_and_noise():
    every = data.robot_arm(300, rng=rng(1))
    fourth = data.robot_arm(300, joint=4, noise=0.1, rng=rng(1))
    assert torch.equal(fourth.y_test, every.y_test[:, 3:4])
    assert 0.08 < float((fourth.y_train - every.y_train[:, 3:4]).std()) < 0.12


@pytest.mark.parametrize(
    "options", [{"n": 1}, {"n": 30, "n_test": 0}, {"n": 30, "noise": -1}, {"n": 30, "joint": 0}]
)
def test_robot_arm_refuses(options):
    with pytest.raises(ValueError, match=r"two rows or more|joints 1 to 7, found joint=0"):
        data.robot_arm(**options, rng=rng())


# --- SARCOS, from files made here, and from the real one where there is one


@pytest.fixture
def sarcos_folder(tmp_path, monkeypatch):
    """A folder with stand-ins for both files; 4,000 of the 4,449 test rows are training rows."""
    import pooch

    test = rng(0).normal(size=(4449, 28))
    test[:, 27] = np.arange(4449)
    train = np.vstack([rng(1).normal(size=(500, 28)), test[rng(2).permutation(4449)[:4000]]])
    files = {}
    (tmp_path / "sarcos").mkdir()
    for which, key, rows in (("train", "sarcos_inv", train), ("test", "sarcos_inv_test", test)):
        path = tmp_path / "sarcos" / f"{key}.mat"
        savemat(path, {key: rows})
        files[which] = (path.name, pooch.file_hash(str(path)))
    monkeypatch.setattr(data, "SARCOS_FILES", files)
    monkeypatch.setenv("BOOK_DATA", str(tmp_path))
    return tmp_path


def test_sarcos_splits_by_blocks_of_time(sarcos_folder):
    def when(y, train):
        """Row numbers, from the last column of the stand-in."""
        return (y[:, 6] * train.std() + train.mean()).round().long().tolist()

    numbers = torch.arange(4449, dtype=torch.float64)
    seen = {}
    for held in ("test", "validation"):
        d = data.sarcos(held=held)
        order = np.random.default_rng(0).permutation(50)
        rows = np.concatenate([numbers[89 * b : 89 * b + 89] for b in order[:40]])
        seen[held] = set(when(d.y_test, rows))
        train = set(when(d.y_train, rows))
        assert not seen[held] & train and len(train) == len(d.x_train)
        assert {len({r // 89 for r in s}) for s in (seen[held], train)} == {5, 40}
    assert not seen["test"] & seen["validation"]
    assert len(seen["test"]) + len(seen["validation"]) + len(train) == 4449
    assert not torch.equal(d.x_test[:80], data.sarcos(held="validation", seed=1).x_test[:80])
    assert data.sarcos(joint=7).y_test.shape[1] == 1
    assert float(d.x_train.std(0, unbiased=False).mean()) == pytest.approx(1)


def test_sarcos_leak(sarcos_folder):
    assert data.sarcos_leak() == pytest.approx(4000 / 4449)
    (sarcos_folder / "sarcos" / "sarcos_inv.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no sarcos_inv\.mat"):
        data.sarcos_leak()


def test_sarcos_refuses(sarcos_folder):
    with pytest.raises(ValueError, match="found 'train'"):
        data.sarcos(held="train")
    with pytest.raises(ValueError, match="joints 1 to 7, found joint=8"):
        data.sarcos(joint=8)
    (sarcos_folder / "sarcos" / "sarcos_inv_test.mat").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="damaged or another file"):
        data.sarcos()


def test_the_real_sarcos(monkeypatch):
    """Linear regression explains torque 1 up to an nMSE of 0.0750, as published."""
    if not (DATA_FOLDER / "sarcos" / "sarcos_inv_test.mat").is_file():
        pytest.skip("no sarcos_inv_test.mat: set BOOK_DATA to a folder that holds it")
    monkeypatch.setenv("BOOK_DATA", str(DATA_FOLDER))
    d = data.sarcos()
    assert len(d.x_train) + len(d.x_test) + len(data.sarcos(held="validation").x_test) == 4449
    rows = data._sarcos("test")
    x, y = np.c_[rows[:, :21], np.ones(len(rows))], rows[:, 21]
    rest = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    assert np.mean(rest**2) / y.var() == pytest.approx(0.0750, abs=5e-5)
