"""`make test`: lint, types, layers, tests. What a machine can't run is counted and printed last as NOT RUN.

A few tests that failed beside the others are run once more, alone, and told by name at the end if they pass then:
docs/explanations/decisions/second-try.md.

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
FAILED_FILE = "INSTRUMENT_FAILED"  # the same for the names of the tests that failed
PYTEST = [sys.executable, "-m", "pytest", "-m", "not soak"]
TESTS = [*PYTEST, "-n", WORKERS, "--dist", "loadfile"]
# A machine that is busy for a moment makes one or two of 2,400 tests on real processes fail. More is a fault of ours.
SECOND_TRIES = 4
ONLY_ALONE = "PASSED ONLY ALONE: "


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


def run(
    command: list, *, quiet: bool = False, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command, with more environment; show what it prints now, or keep it."""
    variables = os.environ | (environment or {})
    return subprocess.run(command, cwd=ROOT, env=variables, check=False, text=True, capture_output=quiet)


def second_try(failed: list[str]) -> bool:
    """Run again, alone and in a new process, what failed beside the others; return whether all passed then."""
    if not 0 < len(failed) <= SECOND_TRIES:
        return False
    print(f"once more, alone: {', '.join(failed)}", flush=True)
    return run([*PYTEST, "-p", "no:xdist", *failed]).returncode == 0


def main(arguments: list[str]) -> int:
    """Run every step, also after one failed; exit 1 if any did."""
    missing = missing_programs()
    if arguments == ["--programs"]:
        return 0
    failed = [name for name, command in AT_ONCE if run(command).returncode]
    with ThreadPoolExecutor() as pool:
        beside = {name: pool.submit(run, command, quiet=True) for name, command in BESIDE_THE_TESTS}
        with tempfile.TemporaryDirectory(prefix="gate-") as directory:
            places = {name: Path(directory, name) for name in (NOT_RUN_FILE, FAILED_FILE)}
            environment = {name: str(path) for name, path in places.items()}
            code = run([*TESTS, *arguments], environment=environment).returncode
            last_lines, not_passed = (
                path.read_text().splitlines() if path.exists() else [] for path in places.values()
            )
        if code == 1 and second_try(not_passed):  # 1: all ran, some failed
            last_lines += [ONLY_ALONE + name for name in not_passed]
        elif code:
            failed.append("pytest")
        for name, future in beside.items():
            done = future.result()
            print(f"{name}:\n{done.stdout}{done.stderr}")
            if done.returncode:
                failed.append(name)
    last_lines += [
        f"{NOT_RUN}what needs {name} (not on this machine, and it could not be installed)" for name in missing
    ]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    print(*last_lines, sep="\n", end="\n" if last_lines else "")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
