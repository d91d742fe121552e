"""Data sets: some made here from a seed, some shipped with a package, some downloaded once.

A download is checked against its published SHA-256 before use and kept in a cache. Set
``BOOK_DATA=FOLDER`` to read the files from a folder instead of the network.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import random
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib import arm


@dataclass(frozen=True)
class Data:
    """A training and a test set. Inputs are (n, features); see each maker for units and range.

    ``n_classes`` > 0: targets are whole class numbers (n,), or 0/1 floats (n, 1) for XOR;
    0: targets are real numbers (n, outputs).
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    n_classes: int
    licence: str
    cite: str


def _standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets, shifted and scaled by the training set's overall mean and deviation."""
    mean, std = train.mean(), train.std()
    return (train - mean) / std, (test - mean) / std


def _classes(
    name: str,
    x: tuple[np.ndarray, np.ndarray],
    y: tuple[np.ndarray, np.ndarray],
    n_classes: int,
    dtype: torch.dtype,
    licence: str,
    cite: str,
) -> Data:
    xs = [torch.from_numpy(np.ascontiguousarray(a)).to(dtype) for a in x]
    ys = [torch.from_numpy(np.asarray(a, dtype=np.int64)) for a in y]
    return Data(name, xs[0], ys[0], xs[1], ys[1], n_classes, licence, cite)


def xor(*, dtype: torch.dtype = torch.float64) -> Data:
    """The four cases of exclusive or: inputs 0/1 (4, 2), targets 0/1 (4, 1); test = training."""
    x = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=dtype)
    y = torch.tensor([[0], [1], [1], [0]], dtype=dtype)
    return Data("xor", x, y, x, y, 2, "none needed", "")


def teacher(
    sizes: Sequence[int],
    *,
    activation: str,
    n_train: int,
    n_test: int,
    noise: float = 0.0,
    rng: np.random.Generator,
    dtype: torch.dtype = torch.float64,
) -> Data:
    """Inputs N(0, 1); targets are what a random teacher net answers, plus noise.

    ``sizes``: the teacher's layers. ``activation``: "linear" (a matrix product) or "relu" hidden
    units. Weights N(0, 2/n_in), for a linear teacher N(0, 1/n_in); outputs are scaled to unit
    variance over the training set, so an nMSE of 1 means nothing was learned. ``noise``:
    standard deviation of what is added to the training targets.
    Raises ValueError for another activation, bad sizes or counts.
    """
    if activation not in ("linear", "relu"):
        raise ValueError(f'expected activation "linear" or "relu", found {activation!r}')
    if len(sizes) < 2 or min(sizes) < 1 or n_train < 2 or n_test < 2 or noise < 0:
        raise ValueError(
            "expected at least two positive sizes, two examples in each set and noise >= 0, "
            f"found sizes={list(sizes)}, n_train={n_train}, n_test={n_test}, noise={noise}"
        )
    power = 1.0 if activation == "linear" else 2.0
    weights = [
        rng.normal(0, np.sqrt(power / n_in), (n_out, n_in)) for n_in, n_out in pairwise(sizes)
    ]
    x = rng.normal(size=(n_train + n_test, sizes[0]))
    h = x
    for i, w in enumerate(weights):
        h = h @ w.T
        if activation == "relu" and i < len(weights) - 1:
            h = np.maximum(h, 0)
    scale = h[:n_train].std(axis=0)
    if not np.all(scale > 0):
        raise ValueError("this teacher is silent (all its units are off): use wider layers")
    t = h / scale
    t[:n_train] += noise * rng.normal(size=t[:n_train].shape)
    x, t = torch.from_numpy(x).to(dtype), torch.from_numpy(t).to(dtype)
    name = f"{activation} teacher"
    a, b = slice(0, n_train), slice(n_train, None)
    return Data(name, x[a], t[a], x[b], t[b], 0, "none needed", "")


def digits(*, seed: int = 0, dtype: torch.dtype = torch.float32) -> Data:
    """1,797 handwritten digits of 8 x 8 pixels from scikit-learn: 1,297 to train, 500 to test.

    ``seed`` draws the split. Pixels are standardised by the training set's mean and deviation.
    Source: Alpaydin & Kaynak 1998 (the test part of their optical-recognition set).
    """
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = x[order], y[order]
    return _classes(
        "digits",
        _standardised(x[:-500], x[-500:]),
        (y[:-500], y[-500:]),
        10,
        dtype,
        "CC BY 4.0",
        "Alpaydin & Kaynak 1998",
    )


def mnist1d(*, seed: int = 42, dtype: torch.dtype = torch.float32) -> Data:
    """MNIST-1D: ten wave forms of 40 points, shifted, scaled and noisy; 4,000 + 1,000 examples.

    Generated by its authors' package from a seed, without a network (about a second). Harder for
    a net without a hidden layer than MNIST, and far smaller.
    Source: Greydanus & Kobak 2024.
    Departs: nothing; the generator's own defaults.
    """
    from mnist1d.data import get_dataset_args, make_dataset

    args = get_dataset_args()
    args.seed = seed
    # the package seeds and draws from the global generators: put both back
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        made = make_dataset(args)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
    x = (np.asarray(made["x"]), np.asarray(made["x_test"]))
    y = (made["y"], made["y_test"])
    return _classes("mnist1d", x, y, 10, dtype, "Apache-2.0", "Greydanus & Kobak 2024")


MNIST_FILES = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}
MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)


def cache_folder() -> Path:
    """Where downloads are kept."""
    import pooch  # here, not above: it would load tqdm's notebook bar in every chapter

    return Path(pooch.os_cache("credit-assignment-book"))


def _check(path: Path, sha256: str) -> Path:
    import pooch

    found = pooch.file_hash(str(path), alg="sha256")
    if found != sha256:
        raise ValueError(
            f"{path} is damaged or another file: expected SHA-256 {sha256}, found {found}; "
            "move it away and run again (it is left untouched)"
        )
    return path


def _unwritable(path: Path, e: OSError) -> OSError:
    return OSError(
        f"cannot write {path.name} to the cache {path.parent} ({e.strerror}): make room or give "
        "leave there, or set BOOK_DATA to a folder that holds the file"
    )


def fetch(file: str, sha256: str, *, mirrors: Sequence[str], folder: str) -> Path:
    """The path of a data file, downloaded once and checked every time.

    Looks in ``BOOK_DATA`` if that is set (in FOLDER/``folder``/ and FOLDER/), else in the cache,
    else downloads from the first mirror that answers, to a temporary name, and renames only
    what passed its check. Files already on disk are never changed.
    Raises FileNotFoundError where there is no file and no network, ValueError for a damaged file,
    OSError where the cache cannot be written or is full.
    """
    import pooch

    given = os.environ.get("BOOK_DATA")
    if given:
        places = [Path(given) / folder / file, Path(given) / file]
        for path in places:
            if path.is_file():
                return _check(path, sha256)
        raise FileNotFoundError(
            f"BOOK_DATA={given} holds no {file}: expected {places[0]}; put the file there, or "
            "unset BOOK_DATA to download it"
        )
    path = cache_folder() / folder / file
    if path.is_file():
        return _check(path, sha256)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as e:
        raise _unwritable(path, e) from e
    reasons = []
    for mirror in mirrors:
        try:
            pooch.retrieve(
                mirror + file,
                f"sha256:{sha256}",
                fname=file,
                path=path.parent,
                progressbar=False,
            )
            return path
        except Exception as e:
            if getattr(e, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise _unwritable(path, e) from e  # no other mirror would help
            reasons.append(f"{mirror}: {type(e).__name__}: {str(e)[:300]}")
    raise FileNotFoundError(
        f"{file} is not in the cache ({path.parent}) and no mirror gave it:\n  "
        + "\n  ".join(reasons)
        + "\nConnect to the network once, or set BOOK_DATA to a folder that holds the file"
    )


def _idx(path: Path) -> np.ndarray:
    """Read an IDX file of bytes: a big-endian header of sizes, then the numbers."""
    with gzip.open(path, "rb") as f:
        raw = f.read()
    sizes = np.frombuffer(raw, ">u4", raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)


def mnist(*, dtype: torch.dtype = torch.float32) -> Data:
    """MNIST: 60,000 + 10,000 digits of 28 x 28 pixels, standardised by 0.1307 and 0.3081."""
    paths = [
        fetch(name, sha, mirrors=MNIST_MIRRORS, folder="mnist") for name, sha in MNIST_FILES.items()
    ]
    x_train, y_train, x_test, y_test = (_idx(p) for p in paths)
    x = [(a.reshape(len(a), -1) / np.float32(255) - 0.1307) / 0.3081 for a in (x_train, x_test)]
    return _classes(
        "mnist",
        (x[0], x[1]),
        (y_train, y_test),
        10,
        dtype,
        "CC BY-SA 3.0",
        "LeCun, Cortes & Burges",
    )


CIFAR10_BATCHES = {  # SHA-256 of the official binary files
    "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
}
CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
CIFAR10_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def _cifar10_files() -> Iterator[tuple[str, Path, bytes]]:
    """Name, place and bytes of each official batch, from BOOK_DATA (as .bin or .npz) or the net."""
    given = os.environ.get("BOOK_DATA")
    if not given:
        file = "cifar-10-binary.tar.gz"
        path = fetch(file, CIFAR10_SHA256, mirrors=CIFAR10_MIRRORS, folder="cifar10")
        with tarfile.open(path) as tar:
            for member in tar:
                if Path(member.name).stem in CIFAR10_BATCHES:
                    yield Path(member.name).stem, path, tar.extractfile(member).read()
        return
    for name in CIFAR10_BATCHES:
        places = [Path(given) / f / f"{name}.bin" for f in ("cifar10", "cifar-10-batches-bin")]
        places.append(places[0].with_suffix(".npz"))
        path = next((p for p in places if p.is_file()), None)
        if path is None:
            raise FileNotFoundError(
                f"BOOK_DATA={given} holds no CIFAR-10: expected {places[0]} or {places[2]}; put "
                "the files there, or unset BOOK_DATA to download them"
            )
        yield name, path, _unpacked(path) if path.suffix == ".npz" else path.read_bytes()


def _unpacked(path: Path) -> bytes:
    """The official bytes of a compact copy: planes G, R - G, B - G, differenced along both axes."""
    try:
        with np.load(path) as batch:
            d, y = batch["d"], batch["y"]
    except Exception as e:  # whatever a damaged archive raises
        raise ValueError(f"{path} is damaged ({e}): move it away and run again") from e
    green, red, blue = np.cumsum(np.cumsum(d, axis=3, dtype=np.uint8), axis=2, dtype=np.uint8)
    x = np.stack([red + green, green, blue + green], axis=1)
    return np.concatenate([y[:, None], x.reshape(len(x), -1)], axis=1).tobytes()


def cifar10(*, dtype: torch.dtype = torch.float32) -> Data:
    """CIFAR-10: the first four training batches to learn from, the fifth held out as the test set.

    40,000 + 10,000 pictures of 3 x 32 x 32 pixels as flat rows, each colour standardised by its
    published mean and deviation. The official test batch is not used: published test errors are
    on that one. Nothing is cropped or flipped. Raises FileNotFoundError where the files cannot be
    had, ValueError for damaged ones.
    """
    rows = []
    for name, path, raw in _cifar10_files():
        found = hashlib.sha256(raw).hexdigest()
        if found != CIFAR10_BATCHES[name]:
            raise ValueError(
                f"{name} in {path} is damaged or another file: expected SHA-256 "
                f"{CIFAR10_BATCHES[name]}, found {found}; move it away and run again (it is left "
                "untouched)"
            )
        rows.append(np.frombuffer(raw, np.uint8).reshape(-1, 3073))
    mean, std = (np.repeat(np.float32(v), 1024) for v in (CIFAR10_MEAN, CIFAR10_STD))
    x = [(r[:, 1:] / np.float32(255) - mean) / std for r in rows]
    y = [r[:, 0] for r in rows]
    return _classes(
        "cifar10",
        (np.concatenate(x[:4]), x[4]),
        (np.concatenate(y[:4]), y[4]),
        10,
        dtype,
        "none stated",
        "Krizhevsky 2009",
    )


def _columns(
    name: str, train: np.ndarray, test: np.ndarray, joint: int | None, dtype: torch.dtype
) -> list[Tensor]:
    """x, y of both sets from rows of 21 inputs and 7 torques, each column standardised."""
    if joint is not None and joint not in range(1, 8):
        raise ValueError(f"{name} has joints 1 to 7, found joint={joint}")
    mean, std = train.mean(0), train.std(0)
    y = slice(21, 28) if joint is None else slice(20 + joint, 21 + joint)
    rows = [torch.from_numpy((a - mean) / std).to(dtype) for a in (train, test)]
    return [part for r in rows for part in (r[:, :21].contiguous(), r[:, y].contiguous())]


def robot_arm(
    n: int = 6000,
    *,
    n_test: int | None = None,
    joint: int | None = None,
    noise: float = 0.0,
    rng: np.random.Generator,
    dtype: torch.dtype = torch.float64,
) -> Data:
    """Inverse dynamics of a simulated arm: angles, velocities, accelerations to seven torques.

    ``n`` training rows, 15 from each random motion of 3 s (5 Hz), and ``n_test`` (n/2 if None)
    from other motions; rigid-body torques plus friction, see lib.arm. ``joint``: 1 to 7 for one
    torque, None for all. ``noise``: standard deviation of what is added to training targets.
    Inputs and torques are standardised, column by column, by the training rows.
    Raises ValueError for a bad count, joint or noise.
    """
    n_test = n // 2 if n_test is None else n_test
    if min(n, n_test) < 2 or noise < 0:
        raise ValueError(
            f"expected two rows or more in each set and noise >= 0, found {n}, {n_test}, {noise}"
        )
    sets = []
    for count in (n, n_test):
        rows = arm.motions(-(-count // 15), rows=15, rng=rng).reshape(-1, 21)[:count]
        q, qd, qdd = np.split(rows, 3, axis=1)
        sets.append(np.hstack([rows, arm.torques(q, qd, qdd) + arm.friction(qd)]))
    x, y, x_test, y_test = _columns("robot_arm", sets[0], sets[1], joint, dtype)
    y = y + torch.from_numpy(noise * rng.normal(size=y.shape)).to(dtype)
    return Data("robot_arm", x, y, x_test, y_test, 0, "none needed", "")


SARCOS_FILES = {
    "train": (
        "sarcos_inv.mat",  # its sum from one third-party record
        "b8a249733253ba6097372fedee7696833fcf30de42037d5b4a7227f21a6d1d97",
    ),
    "test": (
        "sarcos_inv_test.mat",
        "161a59b5c3b4f4b404584323f181607b2acbe620eb134dc720760dc3f38f5cec",
    ),
}


def _sarcos(which: str) -> np.ndarray:
    from scipy.io import loadmat

    file, sha256 = SARCOS_FILES[which]
    mirrors = ("https://gaussianprocess.org/gpml/data/",)
    path = fetch(file, sha256, mirrors=mirrors, folder="sarcos")
    return next(a for key, a in loadmat(path).items() if not key.startswith("__"))


def sarcos(
    *,
    seed: int = 0,
    held: str = "test",
    joint: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> Data:
    """Inverse dynamics of a real arm (SARCOS), from the official test file's 4,449 rows.

    They follow each other about every 0.1 s, so neighbours are alike: 50 blocks of 89 rows in
    time (the last of 88) are drawn by ``seed`` into 40 to train, 5 to validate, 5 to test.
    ``held``: which five stand as the test set, "validation" (choose with these) or "test".
    Columns, ``joint`` and standardising as in ``robot_arm``; rad, rad/s, rad/s^2, N m.
    Raises ValueError for another ``held`` or joint; errors of a download as in ``fetch``.
    Source: Rasmussen & Williams 2006.
    Departs: does not train on the official training file, which holds almost all of these rows.
    """
    if held not in ("validation", "test"):
        raise ValueError(f'expected held "validation" or "test", found {held!r}')
    rows = _sarcos("test")
    blocks = np.array_split(np.arange(len(rows)), range(89, len(rows), 89))
    order = np.random.default_rng(seed).permutation(len(blocks))
    five = order[40:45] if held == "validation" else order[45:]
    train, test = (np.concatenate([rows[blocks[i]] for i in part]) for part in (order[:40], five))
    parts = _columns("sarcos", train, test, joint, dtype)
    return Data("sarcos", *parts, 0, "none stated", "Rasmussen & Williams 2006")


def sarcos_leak() -> float:
    """The share of the official SARCOS test rows that are also rows of its training file.

    Downloads both (10 MB); raises FileNotFoundError where one of them cannot be had.
    """
    test, train = (_sarcos(which) for which in ("test", "train"))
    seen = {row.tobytes() for row in np.ascontiguousarray(train, dtype=np.float64)}
    return float(np.mean([row.tobytes() in seen for row in np.asarray(test, np.float64)]))


MAKERS: dict[str, Callable[..., Data]] = {
    "xor": xor,
    "digits": digits,
    "mnist1d": mnist1d,
    "mnist": mnist,
    "cifar10": cifar10,
    "robot_arm": robot_arm,
    "sarcos": sarcos,
}


def load(name: str, **options: object) -> Data:
    """The data set of that name. Raises ValueError for an unknown one, naming those there are."""
    if name not in MAKERS:
        raise ValueError(f"unknown data set {name!r}; expected one of {', '.join(sorted(MAKERS))}")
    return MAKERS[name](**options)
