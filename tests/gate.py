"""`make test`: lint, types, layers, tests. What a machine can't run is counted and printed last as NOT RUN.

`python3 tests/gate.py --programs` only installs the programs that tests need of the system, with any Python.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
# More than the two cores of a small machine: half of the tests' time is waiting, for motors, counts and processes.
WORKERS = os.environ.get("WORKERS", "4")
# program: Debian package that has it, installed where we may.
SYSTEM_PROGRAMS = {"chromium": "chromium", "tmux": "tmux"}

AT_ONCE = (
    ("ruff", [BIN / "ruff", "check", "."]),
    ("format", [BIN / "ruff", "format", "--check", "."]),
    ("layers", [BIN / "lint-imports"]),
)
BESIDE_THE_TESTS = (("pyright", ["nice", BIN / "pyright"]),)  # most of a minute
NOT_RUN = "NOT RUN: "  # begins the reason of what is skipped because of the machine
NOT_RUN_FILE = "INSTRUMENT_NOT_RUN"  # names, in the environment, where the tests write what was skipped so
TESTS = [sys.executable, "-m", "pytest", "-n", WORKERS, "--dist", "loadfile", "-m", "not soak"]


def missing_programs() -> list[str]:
    """Install what tests need of the system, if we are root on Debian; return what is still missing."""
    missing = [name for name in SYSTEM_PROGRAMS if shutil.which(name) is None]
    if missing and shutil.which("apt-get") and os.geteuid() == 0:
        for command in (
            ["update"],
            ["install", "-y", "--no-install-recommends", *(SYSTEM_PROGRAMS[name] for name in missing)],
        ):
            subprocess.run(["apt-get", *command], capture_output=True, check=False)
        missing = [name for name in SYSTEM_PROGRAMS if shutil.which(name) is None]
    return missing


def run(command: list, *, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command; show what it prints now, or keep it."""
    return subprocess.run(command, cwd=ROOT, check=False, text=True, capture_output=quiet)


def main(arguments: list[str]) -> int:
    """Run every step, also after one failed; exit 1 if any did."""
    missing = missing_programs()
    if arguments == ["--programs"]:
        return 0
    failed = [name for name, command in AT_ONCE if run(command).returncode]
    with ThreadPoolExecutor() as pool:
        beside = {name: pool.submit(run, command, quiet=True) for name, command in BESIDE_THE_TESTS}
        with tempfile.NamedTemporaryFile("r", prefix="not-run-") as skipped:
            os.environ[NOT_RUN_FILE] = skipped.name
            if run([*TESTS, *arguments]).returncode:
                failed.append("pytest")
            not_run = skipped.read().splitlines()
        for name, future in beside.items():
            done = future.result()
            print(f"{name}:\n{done.stdout}{done.stderr}")
            if done.returncode:
                failed.append(name)
    not_run += [f"{NOT_RUN}what needs {name} (not on this machine, and it could not be installed)" for name in missing]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    print(*not_run, sep="\n", end="\n" if not_run else "")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
