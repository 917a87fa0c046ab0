"""`make test`: lint, types, layers, tests. What a machine can't run is counted and printed last as NOT RUN."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
WORKERS = os.environ.get("WORKERS", "2")
# program: Debian package that has it, installed where we may.
SYSTEM_PROGRAMS = {"chromium": "chromium", "tmux": "tmux"}

STEPS = (
    ("ruff", [BIN / "ruff", "check", "."]),
    ("format", [BIN / "ruff", "format", "--check", "."]),
    ("layers", [BIN / "lint-imports"]),
    ("pyright", [BIN / "pyright"]),
)


def missing_programs() -> list[str]:
    """Install what tests need of the system, if we are root on Debian; return what is still missing."""
    missing = [name for name in SYSTEM_PROGRAMS if shutil.which(name) is None]
    if missing and shutil.which("apt-get") and os.geteuid() == 0:
        for command in (["update"], ["install", "-y", *(SYSTEM_PROGRAMS[name] for name in missing)]):
            subprocess.run(["apt-get", *command], capture_output=True, check=False)
        missing = [name for name in SYSTEM_PROGRAMS if shutil.which(name) is None]
    return missing


def main(arguments: list[str]) -> int:
    """Run every step, also after one failed; exit 1 if any did."""
    missing = missing_programs()
    failed = [name for name, command in STEPS if subprocess.run(command, cwd=ROOT, check=False).returncode]
    pytest = [sys.executable, "-m", "pytest", "-n", WORKERS, "--dist", "loadfile", "-m", "not soak", *arguments]
    if subprocess.run(pytest, cwd=ROOT, check=False).returncode:
        failed.append("pytest")
    for name in missing:
        print(f"NOT RUN: what needs {name} (not on this machine, and it could not be installed)")
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
