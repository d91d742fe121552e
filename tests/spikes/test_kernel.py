"""lib.spikes.kernel: what the compiler makes of it; its numbers are tested through the circuits."""

import os
import platform
import subprocess
import sys

import pytest

COUNT = """
from numba import boolean, float32, int32, int64, njit, types
from lib.spikes import kernel
rows, flags = types.Array(float32, 1, "C"), types.Array(int32, 1, "C")
compiled = njit(error_model="numpy")(kernel.two_compartments.py_func)
compiled.compile((rows, int64, int64, rows, flags, float32, float32, boolean))
(text,) = compiled.inspect_asm().values()
print(text.count("zmm"), text.count("ymm"))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="vectors of an x86 processor")
def test_membranes_use_the_widest_vectors_there_are():
    """Compiled for a server of Intel's, whatever this machine is: LLVM alone would stop at 256."""
    features = "+avx512f,+avx512vl,+avx512dq"
    wide = {"NUMBA_CPU_NAME": "icelake-server", "NUMBA_CPU_FEATURES": features}
    found = subprocess.run(
        [sys.executable, "-c", COUNT],
        env={**os.environ, **wide},
        capture_output=True,
        text=True,
        check=True,
    )
    zmm, ymm = map(int, found.stdout.split())
    assert zmm > 5 * ymm
