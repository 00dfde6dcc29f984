"""SIMULATED: edged's TensorRT engine over a software CUDA driver, with real pycuda.

Each run is a process of its own (tests/support/simulated/cases.py). `.ci/run` builds pycuda into
`.pycuda`; that needs CUDA's headers, and without them these tests are skipped. They show that the
engine's own code is right in what it asks of CUDA and TensorRT, and nothing of a GPU.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.export.test_builds import GENERATIONS, installed

ROOT = Path(__file__).parents[2]
SIMULATED = ROOT / "tests" / "support" / "simulated"
HEADERS = Path("/usr/local/cuda/include")
RUN_SECONDS = 170
TELLING = "numbers or two_contexts or freed or memory or told or damaged"
"""Cases that between them ask for everything that the engine ever asks for."""
RECORDED = ("8.6.1", "10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106")


@pytest.fixture(scope="module")
def pycuda() -> Path:
    """Where pycuda lies, or skip."""
    site = Path(os.environ.get("EDGED_PYCUDA", ROOT / ".pycuda"))
    if not (HEADERS / "cuda.h").is_file() or shutil.which("gcc") is None:
        pytest.skip(f"CUDA's toolkit is not here (no {HEADERS / 'cuda.h'}, or no gcc)")
    if not (site / "pycuda").is_dir():
        missing = f"pycuda is not in {site}: .ci/run builds it"
        if os.environ.get("EDGED_REQUIRE_ALL") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return site


@pytest.fixture(scope="module")
def driver(pycuda: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The software driver, compiled; what else pycuda wants of one is `not supported`."""
    folder = tmp_path_factory.mktemp("softcuda")
    library, source = folder / "libcuda.so.1", SIMULATED / "softcuda.c"
    (room,) = (pycuda / "pycuda").glob("_driver*.so")
    compile_ = ["gcc", "-O2", "-fPIC", "-shared", f"-I{HEADERS}", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([*compile_, "-o", str(library), str(source), "-lpthread"], check=True)
    lacking = sorted(symbols(room, "--undefined-only") - symbols(library, "--defined-only"))
    rest = folder / "rest.c"
    rest.write_text("".join(f"int {name}(void) {{ return 801; }}\n" for name in lacking))
    subprocess.run([*compile_, "-o", str(library), str(source), str(rest), "-lpthread"], check=True)
    return library


def symbols(library: Path, which: str) -> set[str]:
    """CUDA's functions that a library has, or wants."""
    said = subprocess.run(
        ["nm", "-D", which, str(library)], capture_output=True, text=True, check=True
    ).stdout
    return set(re.findall(r"\b(cu[A-Z]\w*)", said))


def cases(
    driver: Path,
    pycuda: Path,
    model: Path,
    parts: Path,
    version: str,
    *more: str,
    mutant: str = "",
    api: str = "",
) -> subprocess.CompletedProcess[str]:
    """The contract in a process of its own."""
    places = [str(ROOT), str(pycuda), str(installed(version))]
    environment = {
        **os.environ,
        "EDGED_SOFTCUDA": str(driver),
        "EDGED_MODEL": str(model),
        "EDGED_PARTS": str(parts),
        "EDGED_MUTANT": mutant,
        "EDGED_TENSORRT_API": api,
        "PYTHONPATH": os.pathsep.join(places),
        "LD_LIBRARY_PATH": str(driver.parent),
    }
    words = ["-m", "pytest", "-p", "no:cacheprovider", "-o", "timeout=60", "-rf"]
    return subprocess.run(
        [sys.executable, *words, str(SIMULATED / "cases.py"), *more],
        env=environment, capture_output=True, text=True, timeout=RUN_SECONDS, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("version", GENERATIONS)
def test_the_engine_keeps_the_contract(
    driver: Path, pycuda: Path, model: Path, parts: Path, version: str
) -> None:
    done = cases(driver, pycuda, model, parts, version)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("api", RECORDED)
def test_the_engine_asks_for_nothing_that_a_version_lacks(
    driver: Path, pycuda: Path, model: Path, parts: Path, api: str
) -> None:
    done = cases(driver, pycuda, model, parts, GENERATIONS[-1], "-k", TELLING, api=api)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("mutant", "found_by", "why"),
    [
        ("no wait", "test_the_numbers_are_those_of_the_graph", "Not equal to tolerance"),
        ("early reuse", "test_the_numbers_are_those_of_the_graph", "Not equal to tolerance"),
        ("no copy", "test_no_later_call_touches_an_earlier_result", "array_equal"),
        ("no pop", "test_a_closed_context_says_so", "soft_ctx_depth|Aborted"),
    ],
)
def test_a_fault_in_the_engine_is_found(
    driver: Path, pycuda: Path, model: Path, parts: Path, mutant: str, found_by: str, why: str
) -> None:
    at = (driver, pycuda, model, parts, GENERATIONS[-1], "-k", found_by)
    done = cases(*at, mutant=mutant)  # without it they pass: see above
    assert done.returncode != 0
    assert re.search(why, done.stdout + done.stderr), done.stdout[-4000:]
