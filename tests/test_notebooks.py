"""Every notebook runs from its first cell to its last.

The one about Tiled needs a server with runs: tests/tiled/test_notebook.py runs it.
"""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.terminal import ROOT, clean_environment

ELSEWHERE = "tiled_client"
NOTEBOOKS = sorted(path for path in (ROOT / "notebooks").glob("*.ipynb") if path.stem != ELSEWHERE)


def executed(path: Path, directory: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, run in `directory`; raises what a cell raises."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(directory)}})
    environment = clean_environment(directory, PYTHONPATH=str(ROOT))
    environment.pop("MPLBACKEND")  # the kernel's own
    return client.execute(env=environment)


def shown(notebook: nbformat.NotebookNode) -> str:
    """All text that its cells show."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_runs_and_is_kept_without_outputs(path, tmp_path):
    kept = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in kept.cells)
    notebook = executed(path, tmp_path)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            assert output.output_type != "error", output
        if "show_image(" in cell.source and cell.cell_type == "code":
            assert any("image/png" in output.get("data", {}) for output in cell.outputs), cell.source
    text = shown(notebook)
    assert "Traceback" not in text
    if path.stem == "nexus":
        assert "exported: 1 written" in text
        assert "exported: 0 written, 1 were there already" in text
        assert "'the simulated peak'" in text  # of the replayed file
