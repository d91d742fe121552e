"""lib.data: known facts of every data set, and downloads that go wrong."""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.server
import os
import random
import resource
import signal
import socket
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from helpers import DATA_FOLDER

from lib import data, nets


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def rows(x: torch.Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in x}


# --- made here


def test_xor_has_its_four_rows():
    made = data.xor()
    assert made.x_train.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert made.y_train.tolist() == [[0], [1], [1], [0]]
    assert made.x_test is made.x_train and made.y_test is made.y_train
    assert (made.n_classes, made.x_train.dtype) == (2, torch.float64)
    assert data.xor(dtype=torch.float32).y_train.dtype == torch.float32


def test_a_noiseless_linear_teacher_is_solved_exactly_by_least_squares():
    made = data.teacher([6, 5, 3], activation="linear", n_train=50, n_test=30, rng=rng())
    w, *_ = np.linalg.lstsq(made.x_train.numpy(), made.y_train.numpy())
    assert np.abs(made.x_test.numpy() @ w - made.y_test.numpy()).max() < 1e-12


def test_a_relu_teacher_is_not_linear_but_is_a_net_of_its_sizes():
    """Least squares leaves a good part; a ReLU net without biases scales with its input."""
    made = data.teacher([6, 20, 3], activation="relu", n_train=400, n_test=200, rng=rng())
    w, *_ = np.linalg.lstsq(made.x_train.numpy(), made.y_train.numpy())
    rest = made.x_test.numpy() @ w - made.y_test.numpy()
    assert (rest**2).mean() > 0.1
    assert made.x_train.shape == (400, 6) and made.y_test.shape == (200, 3)
    assert made.n_classes == 0


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_a_teacher_of_one_layer_answers_with_its_matrix(activation):
    """Drawn again from the same seed: weights N(0, power/n_in) first, then the inputs."""
    made = data.teacher([4, 2], activation=activation, n_train=30, n_test=5, rng=rng(3))
    r, power = rng(3), {"linear": 1.0, "relu": 2.0}[activation]
    w = r.normal(size=(2, 4)) * np.sqrt(power / 4)
    x = r.normal(size=(35, 4))
    t = x @ w.T
    assert np.allclose(made.x_train, x[:30]) and np.allclose(made.x_test, x[30:])
    assert np.allclose(made.y_test, (t / t[:30].std(0))[30:], atol=1e-14)


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_a_teachers_targets_have_unit_variance(activation):
    made = data.teacher([5, 8, 3], activation=activation, n_train=40, n_test=20, rng=rng())
    assert made.y_train.numpy().std(axis=0).tolist() == pytest.approx([1, 1, 1], rel=1e-12)


def test_a_teachers_noise_is_added_to_training_targets_only():
    def make(noise: float) -> data.Data:
        sizes, counts = [5, 3], {"n_train": 4000, "n_test": 20}
        return data.teacher(sizes, activation="linear", noise=noise, rng=rng(1), **counts)

    clean, noisy = make(0.0), make(0.5)
    assert torch.equal(clean.x_train, noisy.x_train) and torch.equal(clean.y_test, noisy.y_test)
    difference = noisy.y_train - clean.y_train
    assert difference.std().item() == pytest.approx(0.5, rel=0.03)
    assert abs(difference.mean().item()) < 0.02


def test_teachers_are_equal_for_equal_generators():
    def make(seed: int) -> data.Data:
        return data.teacher([5, 3], activation="relu", n_train=9, n_test=9, rng=rng(seed))

    assert torch.equal(make(1).y_train, make(1).y_train)
    assert not torch.equal(make(1).y_train, make(2).y_train)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"activation": "tanh"}, 'expected activation "linear" or "relu", found \'tanh\''),
        ({"sizes": [3]}, r"at least two positive sizes, .* found sizes=\[3\], n_train=9"),
        ({"sizes": [3, 0, 1]}, r"found sizes=\[3, 0, 1\]"),
        ({"n_train": 1}, "two examples in each set and noise >= 0, found .* n_train=1"),
        ({"n_test": 1}, "n_test=1"),
        ({"noise": -0.1}, "noise=-0.1"),
    ],
)
def test_a_teacher_that_cannot_be_made_says_why(options, words):
    chosen = {"sizes": [3, 2], "activation": "relu", "n_train": 9, "n_test": 9} | options
    with pytest.raises(ValueError, match=words):
        data.teacher(chosen.pop("sizes"), rng=rng(), **chosen)


def test_a_silent_teacher_is_refused():
    class Zeros:
        """A generator that draws 0 and nothing else."""

        def normal(self, *args, size=None):
            return np.zeros(args[2] if size is None else size)

    with pytest.raises(ValueError, match=r"this teacher is silent .*: use wider layers"):
        data.teacher([3, 2], activation="relu", n_train=9, n_test=9, rng=Zeros())


# --- shipped with a package


def test_digits_are_1297_and_500_of_64_pixels():
    made = data.digits()
    assert made.x_train.shape == (1297, 64) and made.x_test.shape == (500, 64)
    assert made.y_train.shape == (1297,) and made.y_test.shape == (500,)
    assert made.n_classes == 10 and made.y_train.dtype == torch.int64
    assert made.x_train.dtype == torch.float32
    assert set(made.y_train.tolist()) == set(made.y_test.tolist()) == set(range(10))


def test_digits_train_and_test_share_no_image_and_lose_none():
    made = data.digits(dtype=torch.float64)
    assert rows(made.x_train) & rows(made.x_test) == set()
    counts = torch.bincount(torch.cat([made.y_train, made.y_test])).tolist()
    assert counts == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_are_standardised_by_their_training_part():
    made = data.digits(dtype=torch.float64)
    assert made.x_train.mean().item() == pytest.approx(0, abs=1e-12)
    assert made.x_train.std(correction=0).item() == pytest.approx(1, rel=1e-12)
    assert 1e-4 < abs(made.x_test.mean().item()) < 0.05  # not by its own mean
    assert made.x_test.min() == made.x_train.min()  # an empty pixel is empty in both


def test_digits_keep_image_and_label_together():
    """Undo the standardising (pixels are 0 to 16) and find every image with its own label."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    labels = {row.tobytes(): label for row, label in zip(x, y, strict=True)}
    made = data.digits(seed=3, dtype=torch.float64)
    low, high = made.x_train.min(), made.x_train.max()
    for images, found in ((made.x_train, made.y_train), (made.x_test, made.y_test)):
        pixels = ((images - low) / (high - low) * 16).round().numpy()
        assert [labels[row.tobytes()] for row in pixels] == found.tolist()


def test_the_split_of_the_digits_comes_from_its_seed():
    assert torch.equal(data.digits(seed=1).x_test, data.digits(seed=1).x_test)
    assert not torch.equal(data.digits(seed=1).y_test, data.digits(seed=2).y_test)


def test_mnist1d_is_4000_and_1000_waves_of_40_points():
    made = data.mnist1d()
    assert made.x_train.shape == (4000, 40) and made.x_test.shape == (1000, 40)
    assert torch.bincount(torch.cat([made.y_train, made.y_test])).tolist() == [500] * 10
    assert rows(made.x_train) & rows(made.x_test) == set()
    everything = torch.cat([made.x_train, made.x_test])
    assert everything.mean().item() == pytest.approx(0, abs=1e-4)
    assert everything.std().item() == pytest.approx(1, abs=1e-3)


def test_mnist1d_is_the_same_every_time_and_touches_no_global_generator():
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - what must not change
    torch.manual_seed(5)
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    one = data.mnist1d()
    after = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    assert after[0] == before[0] and torch.equal(after[2], before[2])
    assert (after[1][1] == before[1][1]).all() and after[1][2:] == before[1][2:]
    np.random.seed(6)  # noqa: NPY002
    two = data.mnist1d()
    assert torch.equal(one.x_train, two.x_train) and torch.equal(one.y_test, two.y_test)
    assert not torch.equal(one.x_train, data.mnist1d(seed=1).x_train)


def test_mnist1d_restores_the_generators_even_if_it_fails(monkeypatch):
    import mnist1d.data

    def broken(args):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(mnist1d.data, "make_dataset", broken)
    before = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    with pytest.raises(RuntimeError, match="on purpose"):
        data.mnist1d()
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_load_finds_a_set_by_name_and_passes_its_options_on():
    assert data.load("xor").name == "xor"
    assert torch.equal(data.load("digits", seed=4).x_test, data.digits(seed=4).x_test)
    for name in ("xor", "digits", "mnist1d", "mnist"):
        assert name in data.MAKERS


def test_an_unknown_set_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"unknown data set 'iris'; expected one of .*digits.*xor"):
        data.load("iris")


def test_data_fits_a_net_without_conversion():
    for made in (data.digits(), data.mnist1d()):
        net = nets.mlp([made.x_train.shape[1], 10], rng=rng())
        assert net(made.x_test[:3]).shape == (3, 10)


# --- MNIST


def test_mnist_from_a_folder(monkeypatch):
    folder = DATA_FOLDER
    for place in (folder / "mnist", folder):
        if all((place / file).is_file() for file in data.MNIST_FILES):
            break
    else:
        pytest.skip("no MNIST files here: set BOOK_DATA to the folder that holds them")
    monkeypatch.setenv("BOOK_DATA", str(folder))
    made = data.mnist()
    assert made.x_train.shape == (60_000, 784) and made.x_test.shape == (10_000, 784)
    assert made.y_train[:3].tolist() == [5, 0, 4] and made.y_test[:3].tolist() == [7, 2, 1]
    assert torch.bincount(made.y_test).tolist()[:3] == [980, 1135, 1032]
    assert made.x_train.dtype == torch.float32 and made.n_classes == 10
    assert made.x_train.double().mean().item() == pytest.approx(0, abs=1e-3)
    assert made.x_train.double().std().item() == pytest.approx(1, abs=1e-3)


def test_the_idx_format_by_hand(tmp_path):
    """Two zero bytes, 8 (bytes), 2 axes, their sizes big-endian, then the numbers."""
    path = tmp_path / "tiny.gz"
    header = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3])
    path.write_bytes(gzip.compress(header + bytes([1, 2, 3, 4, 5, 255])))
    assert data._idx(path).tolist() == [[1, 2, 3], [4, 5, 255]]


def test_mnist_is_read_from_four_files_and_scaled(monkeypatch, tmp_path):
    """Made-up files of 3 and 2 images: pixels 0 and 255 become (0 - m)/s and (1 - m)/s."""

    def idx(array: np.ndarray) -> bytes:
        sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
        return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())

    images = np.zeros((5, 28, 28), dtype=np.uint8)
    images[:, 0, 1] = 255
    labels = np.array([3, 1, 4, 1, 5], dtype=np.uint8)
    parts = [images[:3], labels[:3], images[3:], labels[3:]]
    sums = {}
    for name, part in zip(data.MNIST_FILES, parts, strict=True):
        (tmp_path / name).write_bytes(idx(part))
        sums[name] = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    monkeypatch.setattr(data, "MNIST_FILES", sums)
    monkeypatch.setenv("BOOK_DATA", str(tmp_path))
    made = data.load("mnist")
    assert made.x_train.shape == (3, 784) and made.x_test.shape == (2, 784)
    assert made.y_train.tolist() == [3, 1, 4] and made.y_test.tolist() == [1, 5]
    first = made.x_test[1, :3].tolist()
    assert first == pytest.approx([-0.1307 / 0.3081, 0.8693 / 0.3081, -0.1307 / 0.3081], rel=1e-6)


# --- CIFAR-10


@pytest.fixture
def pictures(monkeypatch) -> dict[str, np.ndarray]:
    """Five made-up batches of four pictures, in the official layout, with their checksums."""
    rng = np.random.default_rng(0)
    made = {n: rng.integers(0, 256, (4, 3073), dtype=np.uint8) for n in data.CIFAR10_BATCHES}
    for rows in made.values():
        rows[:, 0] %= 10
    sums = {name: hashlib.sha256(rows.tobytes()).hexdigest() for name, rows in made.items()}
    monkeypatch.setattr(data, "CIFAR10_BATCHES", sums)
    return made


def compact(rows: np.ndarray) -> dict[str, np.ndarray]:
    """The lossless coding by differences, written independently of its reader."""
    red, green, blue = rows[:, 1:].reshape(-1, 3, 32, 32).swapaxes(0, 1)
    d = np.stack([green, red - green, blue - green])
    for axis in (2, 3):
        d = np.diff(d, axis=axis, prepend=np.uint8(0))
    return {"d": d, "y": rows[:, 0]}


@pytest.mark.parametrize("way", ["bin", "npz", "tar"])
def test_cifar10_is_the_same_however_it_is_stored(way, pictures, monkeypatch, tmp_path):
    monkeypatch.setenv("BOOK_DATA", "" if way == "tar" else str(tmp_path))
    folder = tmp_path / ("cifar-10-batches-bin" if way != "npz" else "cifar10")
    folder.mkdir()
    for name, rows in pictures.items():
        if way == "npz":
            np.savez(folder / f"{name}.npz", **compact(rows))
        else:
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
    if way == "tar":
        path = tmp_path / "cifar10.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            tar.add(folder, folder.name)
        monkeypatch.setattr(data, "fetch", lambda *a, **k: path)
    made = data.load("cifar10")
    assert made.x_train.shape == (16, 3072) and made.x_test.shape == (4, 3072)
    last = pictures["data_batch_5"]
    assert made.y_test.tolist() == last[:, 0].tolist()
    first = np.concatenate([pictures[f"data_batch_{k}"] for k in (1, 2, 3, 4)])
    assert made.y_train.tolist() == first[:, 0].tolist()
    for plane, (mean, std) in enumerate(((0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616))):
        wanted = (last[3, 1 + 1024 * plane + 77] / 255 - mean) / std  # hand-computed, one pixel
        assert made.x_test[3, 1024 * plane + 77].item() == pytest.approx(wanted, abs=1e-5)


def test_cifar10_damaged_or_missing_says_so(pictures, monkeypatch, tmp_path):
    monkeypatch.setenv("BOOK_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"holds no CIFAR-10: expected .*data_batch_1.bin"):
        data.cifar10()
    (tmp_path / "cifar10").mkdir()
    for name, rows in pictures.items():
        (tmp_path / "cifar10" / f"{name}.bin").write_bytes(rows.tobytes())
    bad = tmp_path / "cifar10" / "data_batch_3.bin"
    bad.write_bytes(bytes([bad.read_bytes()[0] ^ 1]) + bad.read_bytes()[1:])
    with pytest.raises(ValueError, match=r"data_batch_3 in .* is damaged or another file"):
        data.cifar10()
    bad.unlink()
    bad.with_suffix(".npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match=r"data_batch_3.npz is damaged"):
        data.cifar10()
    assert bad.with_suffix(".npz").exists()


def test_cifar10_from_a_folder(monkeypatch):
    if not (DATA_FOLDER / "cifar10").is_dir():
        pytest.skip("no CIFAR-10 files here: set BOOK_DATA to the folder that holds them")
    monkeypatch.setenv("BOOK_DATA", str(DATA_FOLDER))
    made = data.cifar10()
    assert made.x_train.shape == (40_000, 3072) and made.x_test.shape == (10_000, 3072)
    assert made.x_train.double().mean().item() == pytest.approx(0, abs=5e-3)
    assert made.x_train.double().std().item() == pytest.approx(1, abs=5e-3)


# --- downloads

NAME, CONTENT = "tiny.bin", b"a few bytes\n" * 300
SHA = hashlib.sha256(CONTENT).hexdigest()
FAULTS = ["damaged", "flipped", "missing", "broken", "halfway", "short"]


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache, no BOOK_DATA, no proxy between us and our own server."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(data, "cache_folder", lambda: folder)
    monkeypatch.delenv("BOOK_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder


class Server:
    """A server on this machine; ``url(kind)`` is a mirror that behaves in that way."""

    def __init__(self) -> None:
        self.hits: list[str] = []
        self.go_on = threading.Event()  # what "silent" and "slow" wait for
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                kind = self.path.split("/")[1]
                server.hits.append(kind)
                if kind == "missing":
                    self.send_error(404)
                    return
                if kind == "broken":
                    self.send_error(500)
                    return
                if kind == "silent":
                    server.go_on.wait(10)
                    return
                body = CONTENT.replace(b"few", b"FEW") if kind == "damaged" else CONTENT
                if kind == "flipped":
                    body = body[:1000] + bytes([body[1000] ^ 1]) + body[1001:]
                self.send_response(200)
                if kind != "short":  # then the end of the connection is the end of the file
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2])
                if kind == "slow":
                    server.go_on.wait(10)
                if kind not in ("halfway", "short"):
                    self.wfile.write(body[len(body) // 2 :])

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    def url(self, kind: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/{kind}/"

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def running():
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def server(running):
    running.hits.clear()
    running.go_on.clear()
    yield running
    running.go_on.set()


def closed_port() -> str:
    """An address on this machine where nothing listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}/"


def fetch(*mirrors: str) -> Path:
    return data.fetch(NAME, SHA, mirrors=mirrors, folder="sets")


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_the_cache_lies_outside_the_repository():
    assert Path(__file__).resolve().parents[1] not in data.cache_folder().resolve().parents


def test_a_file_is_downloaded_once_and_then_read_from_the_cache(cache, server):
    for _ in range(3):
        path = fetch(server.url("good"))
        assert path == cache / "sets" / NAME and path.read_bytes() == CONTENT
    assert server.hits == ["good"]
    assert files(cache) == [f"sets/{NAME}"]


def test_a_cached_file_needs_no_mirror_at_all(cache, server):
    fetch(server.url("good"))
    assert fetch().read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("damaged", r"ValueError: SHA256 hash of downloaded file \(tiny\.bin\) does not match"),
        ("missing", r"HTTPError: 404"),
        ("halfway", r"IncompleteRead\(1800 bytes read"),
        ("flipped", r"ValueError: SHA256 hash of downloaded file \(tiny\.bin\) does not match"),
        ("short", r"ValueError: SHA256 hash of downloaded file \(tiny\.bin\) does not match"),
        ("broken", r"HTTPError: 500"),
    ],
)
def test_a_download_that_fails_names_mirror_and_reason_and_leaves_nothing(
    cache, server, kind, reason
):
    with pytest.raises(FileNotFoundError, match=reason) as caught:
        fetch(server.url(kind))
    words = str(caught.value)
    assert server.url(kind) in words and server.hits == [kind]
    assert words.startswith(f"{NAME} is not in the cache ({cache / 'sets'}) and no mirror gave it")
    assert words.endswith(
        "Connect to the network once, or set BOOK_DATA to a folder that holds the file"
    )
    assert files(cache) == []


@pytest.mark.parametrize("kind", FAULTS)
def test_after_a_failure_the_same_call_succeeds_from_a_good_mirror(cache, server, kind):
    with pytest.raises(FileNotFoundError):
        fetch(server.url(kind))
    assert fetch(server.url("good")).read_bytes() == CONTENT
    assert files(cache) == [f"sets/{NAME}"]


@pytest.mark.parametrize("kind", FAULTS)
def test_the_second_mirror_is_asked_when_the_first_fails(cache, server, kind):
    path = fetch(server.url(kind), server.url("good"))
    assert path.read_bytes() == CONTENT and server.hits == [kind, "good"]
    assert files(cache) == [f"sets/{NAME}"]


def test_a_mirror_that_never_answers_is_left_for_the_next(cache, server, monkeypatch):
    monkeypatch.setattr(pooch.downloaders, "DEFAULT_TIMEOUT", 0.2)
    path = fetch(server.url("silent"), server.url("good"))
    assert path.read_bytes() == CONTENT and server.hits == ["silent", "good"]


@pytest.mark.parametrize("at", [0, 1, 77, len(CONTENT) // 2, len(CONTENT) - 1])
@pytest.mark.parametrize("bit", [0, 7])
def test_any_flipped_bit_of_a_kept_file_is_seen(cache, at, bit):
    path = cache / "sets" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:at] + bytes([CONTENT[at] ^ 1 << bit]) + CONTENT[at + 1 :])
    with pytest.raises(ValueError, match="is damaged or another file"):
        fetch()


def test_a_disk_that_fills_up_says_so_and_leaves_nothing(cache, server):
    """A file may have 2,000 bytes in this process: the third kilobyte finds no room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError) as caught:
            fetch(server.url("good"), server.url("good"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value) == (
        f"cannot write {NAME} to the cache {cache / 'sets'} (File too large): make room or give "
        "leave there, or set BOOK_DATA to a folder that holds the file"
    )
    assert server.hits == ["good"]  # no other mirror would help
    assert files(cache) == []
    assert fetch(server.url("good")).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written_says_so_before_it_downloads(cache, server, monkeypatch):
    def read_only(*args, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as m:
        m.setattr(data.tempfile, "TemporaryFile", read_only)
        with pytest.raises(OSError, match=r"cannot write tiny.bin .* \(Read-only file system\)"):
            fetch(server.url("good"))
    assert server.hits == [] and files(cache) == []


def test_a_file_where_the_cache_should_be_is_named_and_left_alone(cache, server):
    cache.write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"cannot write tiny.bin .* \(Not a directory\): make room"):
        fetch(server.url("good"))
    assert server.hits == [] and cache.read_text() == "a file where the folder should be"


def test_a_read_only_cache_that_holds_the_file_is_enough(cache, server, monkeypatch):
    fetch(server.url("good"))
    monkeypatch.setattr(data.tempfile, "TemporaryFile", lambda **k: pytest.fail("it wrote"))
    assert fetch().read_bytes() == CONTENT


def in_a_process(work) -> int:
    """Start ``work`` in a process of its own; exit code 0 where it returns true."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(99)
    return pid


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def wait_for(condition) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_several_processes_may_download_one_file_at_once(cache, server):
    """All are half-way through when the server goes on; each gets the whole file."""
    pids = [
        in_a_process(lambda: fetch(server.url("slow")).read_bytes() == CONTENT) for _ in range(3)
    ]
    wait_for(lambda: server.hits == ["slow"] * 3 and len(files(cache)) == 3)
    assert not (cache / "sets" / NAME).exists()
    server.go_on.set()
    assert [exit_code(pid) for pid in pids] == [0, 0, 0]
    assert files(cache) == [f"sets/{NAME}"] and fetch().read_bytes() == CONTENT


def test_a_download_killed_half_way_leaves_no_file_of_that_name(cache, server):
    pid = in_a_process(lambda: fetch(server.url("slow")))
    wait_for(lambda: server.hits == ["slow"] and files(cache))
    os.kill(pid, signal.SIGKILL)
    assert exit_code(pid) == -signal.SIGKILL
    assert not (cache / "sets" / NAME).exists()
    server.go_on.set()
    assert fetch(server.url("good")).read_bytes() == CONTENT


def test_a_mirror_that_answers_is_the_last_one_asked(cache, server):
    fetch(closed_port(), server.url("good"), server.url("missing"))
    assert server.hits == ["good"]


def test_every_mirrors_reason_is_told(cache, server):
    dead = closed_port()
    with pytest.raises(FileNotFoundError) as caught:
        fetch(dead, server.url("missing"))
    lines = str(caught.value).splitlines()
    assert lines[1].startswith(f"  {dead}: ConnectionError")
    assert lines[2].startswith(f"  {server.url('missing')}: HTTPError")
    assert len(lines) == 4


def test_without_a_network_the_error_says_what_to_do(cache, monkeypatch):
    def lookup(*args, **kwargs):
        raise socket.gaierror(-3, "no network, on purpose")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(FileNotFoundError, match="set BOOK_DATA to a folder that holds the file"):
        fetch("https://book.invalid/")
    assert files(cache) == []


def test_a_damaged_file_in_the_cache_is_reported_and_left_untouched(cache, server):
    path = cache / "sets" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half of a few bytes")
    before = path.stat().st_mtime_ns
    found = hashlib.sha256(b"half of a few bytes").hexdigest()
    with pytest.raises(ValueError) as caught:
        fetch(server.url("good"))
    words = str(caught.value)
    assert str(path) in words and SHA in words and found in words
    assert "move it away and run again (it is left untouched)" in words
    assert path.read_bytes() == b"half of a few bytes" and path.stat().st_mtime_ns == before
    assert server.hits == [] and files(cache) == [f"sets/{NAME}"]
    path.rename(path.with_suffix(".old"))
    assert fetch(server.url("good")).read_bytes() == CONTENT


@pytest.mark.parametrize("place", ["sets", "."])
def test_book_data_is_read_instead_of_cache_and_network(
    cache, server, monkeypatch, tmp_path, place
):
    folder = tmp_path / "given"
    (folder / place).mkdir(parents=True)
    (folder / place / NAME).write_bytes(CONTENT)
    monkeypatch.setenv("BOOK_DATA", str(folder))
    assert fetch(server.url("good")).samefile(folder / place / NAME)
    assert server.hits == [] and not cache.exists()


def test_book_data_without_the_file_says_where_it_was_expected(
    cache, server, monkeypatch, tmp_path
):
    """Also where the cache holds it: what was asked for is that folder."""
    fetch(server.url("good"))
    monkeypatch.setenv("BOOK_DATA", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError) as caught:
        fetch(server.url("good"))
    words = str(caught.value)
    assert f"BOOK_DATA={tmp_path / 'empty'} holds no {NAME}" in words
    assert f"expected {tmp_path / 'empty' / 'sets' / NAME}" in words
    assert "unset BOOK_DATA to download it" in words
    assert server.hits == ["good"] and not (tmp_path / "empty").exists()


def test_a_damaged_file_in_book_data_is_reported_and_left_untouched(
    cache, server, monkeypatch, tmp_path
):
    path = tmp_path / "sets" / NAME
    path.parent.mkdir()
    path.write_bytes(CONTENT[:-1])
    monkeypatch.setenv("BOOK_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="is damaged or another file: expected SHA-256"):
        fetch(server.url("good"))
    assert path.read_bytes() == CONTENT[:-1] and server.hits == []


def test_an_empty_book_data_counts_as_none(cache, server, monkeypatch):
    monkeypatch.setenv("BOOK_DATA", "")
    assert fetch(server.url("good")).read_bytes() == CONTENT


def test_mnist_without_a_network_names_both_its_mirrors(cache, monkeypatch):
    def lookup(*args, **kwargs):
        raise socket.gaierror(-3, "no network, on purpose")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(FileNotFoundError) as caught:
        data.mnist()
    assert all(mirror in str(caught.value) for mirror in data.MNIST_MIRRORS)
    assert all(mirror.startswith("https://") for mirror in data.MNIST_MIRRORS)
