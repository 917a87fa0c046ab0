"""Makes the pictures of the live plot in docs/images: a line with its peak marked, and a grid.

python -m tests.session.pictures
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults.session import write_config
from tests.terminal import ROOT, clean_environment

IMAGES = ROOT / "docs" / "images"
TYPED = """\
plotselect noisy
ascan m1 -0.8 -0.2 60 0.05
dscan m1 -0.4 0.2 40 0.05
bec.save_plot("{images}/ascan.png")
mesh m1 -0.7 -0.3 16 m2 0 0.4 8 0.05
bec.save_plot("{images}/mesh.png")
"""


def draw(directory: Path, images: Path) -> subprocess.CompletedProcess[str]:
    """Scan in a session in a directory, always in the same simulated world; save what the plot shows."""
    packaged = (ROOT / "instrument/config/iconfig.yml").read_text()
    rest = packaged.replace("seed: null", "seed: 7").replace("devices: [devices.yml]", "")
    config = write_config(directory, rest)
    return subprocess.run(
        [sys.executable, "-m", "instrument.cli", "session", "--config", str(config)],
        cwd=directory,
        env=clean_environment(directory),
        input=TYPED.format(images=images),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def main() -> int:
    """Draw them."""
    with tempfile.TemporaryDirectory() as name:
        done = draw(Path(name), IMAGES)
    sys.stderr.write(done.stderr if done.returncode else "")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
