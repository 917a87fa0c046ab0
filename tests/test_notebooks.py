"""Every notebook runs from its first cell to its last, and shows what its text says.

A cell with the tag `check` asserts what the cells before it have shown; one with the tag `raises-exception` shows an
error, in the line that ERRORS has.
"""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.terminal import ROOT, clean_environment

ALL = sorted((ROOT / "notebooks").glob("*.ipynb"))
ERRORS = {
    "01-start-here": ["mv: m1 would go to 1e+06, outside of its limits -32000 to 32000; nothing moved"],
    "02-connect-to-epics": ["gp:m99.VAL could not connect within 1.0-second timeout."],
    "04-move-a-motor": [
        "ascan: point 9 of 11: m1: 2.2 degrees is outside of its limits -2 to 2 degrees; nothing moved"
    ],
    "07-temperature": ["mv: temperature would go to 300, outside of its limits -20 to 255; nothing moved"],
    "11-custom-device": ["mv: slit_gap would go to -1, outside of its limits 0 to 5; nothing moved"],
    "12-custom-plan": [
        "something broke",
        "careful: 1 position can't be a scan: give two or more; nothing moved",
    ],
    "13-run-engine": [
        "the run was aborted (Ctrl-C); motors are told to stop, the data so far is kept",
        "paused: RE.resume() goes on, RE.stop() or RE.abort('why') ends it in good order, RE.halt() at once",
        "paused: RE.resume() goes on, RE.stop() or RE.abort('why') ends it in good order, RE.halt() at once",
        "division by zero",
        "the disk is full",
    ],
    "19-limits-and-suspenders": [
        "mv: m1 would go to 3, outside of its limits -2 to 2; nothing moved",
        "ascan: point 8 of 11: m1: 2.1 degrees is outside of its limits -2 to 2 degrees; nothing moved",
        "list_scan: m1: 2.5 degrees is outside of its limits -2 to 2 degrees; nothing moved",
        "the plan was aborted (Ctrl-C); motors are told to stop, the data so far is kept",
    ],
}


def tags(cell: nbformat.NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def executed(notebook: nbformat.NotebookNode, directory: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, run in `directory`; raises what a cell raises."""
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(directory)}})
    environment = clean_environment(directory, PYTHONPATH=str(ROOT))
    environment.pop("MPLBACKEND")  # the kernel's own
    return client.execute(env=environment)


def shown(notebook: nbformat.NotebookNode) -> str:
    """All text that its cells show."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)


def draws(source: str) -> bool:
    """Does a cell show a picture?"""
    return "show_image(" in source or "plt.subplots(" in source


def test_notebooks_are_numbered_without_gaps():
    assert [path.stem[:3] for path in ALL] == [f"{number:02d}-" for number in range(1, len(ALL) + 1)]


@pytest.mark.parametrize("path", ALL, ids=[path.stem for path in ALL])
def test_a_notebook_is_kept_without_outputs_and_checks_what_it_shows(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert set(tags(cell)) <= {"check", "raises-exception"}
    checks = [cell for cell in notebook.cells if "check" in tags(cell)]
    assert checks
    for cell in checks:
        assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(cell.source))), cell.source
        assert len(cell.source.splitlines()) <= 12, cell.source
        assert cell.metadata["jupyter"]["source_hidden"]  # folded: a trainee reads what comes before


@pytest.mark.parametrize("path", ALL, ids=[path.stem for path in ALL])
def test_the_links_of_a_notebook_lead_somewhere(path):
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\((?!https?:|#|attachment:)([^)#]+)", text):
        assert (path.parent / target).exists(), target


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """One for all notebooks: trainees run them where runs of others are already, and more than once."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.mark.parametrize("path", ALL, ids=[path.stem for path in ALL])
def test_a_notebook_runs(path, directory):
    notebook = executed(nbformat.read(path, as_version=4), directory)
    errors = []
    for cell in notebook.cells:
        errors += [output for output in cell.get("outputs", ()) if output.output_type == "error"]
        if cell.cell_type == "code" and draws(cell.source):
            assert any("image/png" in output.get("data", {}) for output in cell.outputs), cell.source
    assert [error.evalue for error in errors] == ERRORS.get(path.stem, [])
    for error in errors:  # in one line each
        assert [line.removeprefix(f"{error.ename}: ") for line in error.traceback] == [error.evalue]
    text = shown(notebook)
    assert ("Traceback" in text) == any(cell.source == "last_error()" for cell in notebook.cells)
    assert "as a statement of its own" not in text  # a plan of a cell that was never run
    if path.stem == "12-custom-plan":
        assert "the plan mv was never run; write `yield from mv(...)`" in text
    if path.stem == "16-nexus":
        assert "exported: 1 written" in text
        assert "exported: 0 written, 1 were there already" in text
        assert "'the simulated peak'" in text  # of the replayed file
    if path.stem == "18-tiled-client":
        assert re.search(r"Search of catalog='class_2021_03' has [1-9]\d* runs\.", text)
        assert "did you mean 'time_range'?" in text
        assert "[ ]" not in notebook.cells[0].source


def test_a_check_that_does_not_hold_fails_in_a_session(tmp_path):
    """A session shows errors in one line of its own: they have to reach who runs the notebook all the same."""
    notebook = nbformat.read(ALL[0], as_version=4)
    check = next(cell for cell in notebook.cells if "check" in tags(cell))
    tree = ast.parse(check.source)
    claim = next(node for node in ast.walk(tree) if isinstance(node, ast.Assert))
    claim.test = ast.UnaryOp(ast.Not(), claim.test)
    check.source = ast.unparse(ast.fix_missing_locations(tree))
    notebook.cells = notebook.cells[: notebook.cells.index(check) + 1]
    with pytest.raises(CellExecutionError, match="AssertionError"):
        executed(notebook, tmp_path)
