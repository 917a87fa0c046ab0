"""The documentation: it builds without a warning, and what its pages tell to type shows what they say."""

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest
import yaml

from instrument.config import documents, loader
from tests.docs.pages import DIFFERS, DOCS, run, steps
from tests.faults.session import write_config
from tests.terminal import ROOT
from tests.test_notebooks import executed, shown


def seeded(directory: Path) -> Path:
    """Our own configuration, with a world that is always the same."""
    packaged = (ROOT / "instrument" / "config" / "iconfig.yml").read_text()
    where = directory / "configuration"
    where.mkdir()
    return write_config(where, packaged.replace("seed: null", "seed: 7").replace("devices: [devices.yml]", ""))


# Pages that are typed one after the other in one directory; others stand alone.
TOGETHER = (
    ("tutorials/at-the-beamline.md", "reference/prompt.md", "how-to/area-detector.md"),
    ("how-to/add-a-device.md", "how-to/add-a-plan.md", "how-to/add-a-detector.md"),
    ("how-to/two-stations.md", "how-to/logs.md", "how-to/something-is-wrong.md"),
    ("tutorials/your-own-beamline.md",),
    ("tutorials/from-far-away.md",),
    ("how-to/real-epics.md",),
    ("how-to/queue.md",),
    ("reference/shell.md",),
)
OWN_CONFIGURATION = {"add-a-device.md", "your-own-beamline.md", "two-stations.md", "real-epics.md", "shell.md"}


def needs_seed(pages: list[Path]) -> bool:
    """Whether the pages use our own configuration throughout, so that it may be one whose world is always the same."""
    return not OWN_CONFIGURATION & {page.name for page in pages}


def paths(names: tuple[str, ...]) -> list[Path]:
    return [DOCS / name for name in names]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("names", TOGETHER, ids=[Path(names[0]).stem for names in TOGETHER])
def test_what_a_page_tells_to_type_shows_what_it_says(names, tmp_path):
    pages = paths(names)
    shutil.copytree(DOCS / "code", tmp_path, dirs_exist_ok=True)
    typed = run(pages, tmp_path, seeded(tmp_path) if needs_seed(pages) else None)
    assert len(typed) > 3
    wrong = "\n".join(str(one) for one in typed if not one.agrees)
    assert not wrong, wrong


def test_the_session_of_the_readme_is_as_shown(tmp_path):
    """But for numbers, times and uids, which are of another session."""
    (shown,) = re.findall(r"(?ms)^```ipython\n(.*?)^```$", (ROOT / "README.md").read_text())
    for differs, instead in ((r"(?m)^In .\d+.: ", ">>> "), *DIFFERS):
        shown = re.sub(differs, instead, shown)
    page = tmp_path / "readme.md"
    page.write_text(f"```pycon\n{shown}```\n")
    typed = run([page], tmp_path, seeded(tmp_path))
    assert len(typed) == 5
    wrong = "\n".join(str(one) for one in typed if not one.agrees)
    assert not wrong, wrong


def test_every_page_with_something_to_type_is_typed():
    listed = {path for names in TOGETHER for path in paths(names)}
    listed.add(DOCS / "how-to" / "snapshots.md")  # tests/snapshot types it, which masks what it prints in its own way
    assert listed == {page for page in DOCS.rglob("*.md") if re.search(r"(?m)^```(console|pycon)$", page.read_text())}


def test_every_piece_of_yaml_is_what_the_files_may_say():
    from instrument.config.models import SessionFile
    from instrument.devices import registry

    keys = set(SessionFile.model_fields)
    for page in DOCS.rglob("*.md"):
        for text in re.findall(r"(?ms)^ *```yaml\n(.*?)^ *```$", page.read_text()):
            content = yaml.safe_load(textwrap.dedent(text))
            if set(content) <= keys:
                SessionFile.model_validate(content)
                continue
            place = page.parent / "piece.yml"
            document = documents.Document(place, content)
            specs = loader.device_specs(document)
            assert specs, text
            assert [*document.problems, *registry.check(specs)] == [], page


def test_every_name_of_the_prompt_has_an_example():
    from instrument import commands, session

    page = DOCS / "reference" / "prompt.md"
    text = page.read_text()
    examples = "".join(one.source for _, typed in steps(page) for one in typed)
    plain = "\n".join(line for line in text.splitlines() if not line.startswith(">>>"))
    lacking = {name for name in commands.NAMES + session.NAMES if not re.search(rf"\b{name}\b", examples)}
    assert {name for name in lacking if f"`{name}" not in plain} == set()
    assert lacking & set(commands.NAMES) == {"tw"}  # asks for keys: typed at a terminal by the cheat sheet's test
    assert lacking <= {"tw", "RE", "cat", "db", "sd", "bec", "peaks", "bp", "bps", "bpp", "oregistry", "specwriter",
                      "newSpecFile", "spec_comment", "nxwriter", "SnapshotReport"}  # fmt: skip


def test_every_command_of_the_shell_has_an_example():
    from docs.generated import commands_of
    from instrument import cli, snapshot_cli
    from virtual_beamline import __main__ as virtual_beamline

    pages = "".join((DOCS / name).read_text() for name in ("reference/shell.md", "how-to/queue.md"))
    examples = re.sub(r"(?m)^(?!\$ ).*$", "", pages)
    for parser in (cli.parser(), snapshot_cli.parser(), virtual_beamline.parser()):
        for words, _ in commands_of(parser, parser.prog):
            if words == "instrument demo":  # half a minute; tests/session runs it
                continue
            assert re.search(rf"(?m)(^\$ |[|(;] *|\d ){words}\b", examples), words


def test_the_cells_of_the_first_notebook_run(tmp_path):
    cells = re.split(r"(?m)^# %% .*\n", (DOCS / "code" / "first_notebook.py").read_text())[1:]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells])
    assert re.search(r"21 points, the highest at -?[01]\.\d", shown(executed(notebook, tmp_path)))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site."""
    place = tmp_path_factory.mktemp("site")
    words = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(place / "doctrees"), str(DOCS), str(place / "html")]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return place / "html"


def test_the_site_builds_without_a_warning(site):
    pages = {path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html")}
    notebooks = {f"tutorials/notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    markdown = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    assert notebooks <= pages
    assert {page for page in markdown if not page.startswith("_")} <= pages


def test_links_between_its_pages_lead_somewhere(site):
    broken = set()
    for page in site.rglob("*.html"):
        text = page.read_text()
        for link in re.findall(r'(?:href|src)="([^":#?]+)(?:[?#][^"]*)?"', text):
            if not (page.parent / link).exists():
                broken.add(f"{page.relative_to(site)}: {link}")
    assert broken == set()


def test_what_is_made_from_the_code_has_all_of_it(site):
    from instrument.config.models import SessionFile
    from virtual_beamline import beamline

    iconfig = (site / "reference" / "iconfig.html").read_text()
    assert all(f">{key}<" in iconfig for key in SessionFile.model_fields)
    assert all(f">{key}<" in iconfig for key in ("fsync_interval", "abort_after", "public_read", "chemical_formula"))
    pvs = (site / "reference" / "pvs.html").read_text()
    assert f"<p>{len(beamline.contents())} records.</p>" in pvs
    assert "gp:m1<" in pvs
    assert "Traceback" not in iconfig + pvs
