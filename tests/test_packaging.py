"""One list of dependencies, seen three ways: pyproject.toml, constraints.txt, environment.yml."""

import ast
import importlib.metadata
import itertools
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.terminal import clean_environment

ROOT = Path(__file__).parent.parent
CONDA_NAMES = {"msgpack-python": "msgpack"}  # conda-forge's name: PyPI's name


def split(requirement: str) -> tuple[str, frozenset[str]]:
    name, _extras, versions = re.fullmatch(r"([\w.-]+)(\[[\w,]+\])?\s*(.*)", requirement).groups()
    name = CONDA_NAMES.get(name, name)
    return re.sub(r"[-_.]+", "-", name).lower(), frozenset(filter(None, versions.replace(" ", "").split(",")))


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def every_requirement(project: dict) -> list[str]:
    requirements = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    return [r for r in requirements if split(r)[0] != project["name"]]  # an extra that asks for another of ours


def test_every_dependency_has_a_lower_bound(project):
    requirements = every_requirement(project)
    unbounded = [r for r in requirements if not any(v.startswith((">=", "==")) for v in split(r)[1])]
    assert not unbounded


# In the test tools' plugin; by the demo, where it is.
OPTIONAL = {"pytest", "punx"}


def test_every_package_that_is_imported_is_a_dependency_or_in_an_extra(project):
    distributions = importlib.metadata.packages_distributions()
    users = ("notebook", "queue", "tiled")
    declared = {
        split(r)[0]
        for r in [*project["dependencies"], *itertools.chain(*map(project["optional-dependencies"].get, users))]
    }
    undeclared = set()
    for path in [*(ROOT / "instrument").rglob("*.py"), *(ROOT / "virtual_beamline").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            for package in {module.partition(".")[0] for module in modules}:
                ours = package in {"instrument", "virtual_beamline"}
                if not ours and package not in sys.stdlib_module_names:
                    names = {split(name)[0] for name in distributions.get(package, [package])}
                    if not names & (declared | OPTIONAL):
                        undeclared.add((package, path.name))
    assert not undeclared


def test_every_dependency_is_pinned_in_constraints(project):
    pins = dict(
        split(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")
    )
    requirements = every_requirement(project)
    for name, _ in map(split, requirements):
        assert name in pins, f"{name} is not pinned"
        assert all(v.startswith("==") for v in pins[name])


def test_no_download_host_is_named():
    for file in ("pyproject.toml", "constraints.txt", "environment.yml", "Makefile", ".ci/run"):
        text = (ROOT / file).read_text()
        assert not re.search(r"(index-url|find-links|trusted-host|https?://)", text), file


def test_environment_yml_is_the_conda_view_of_pyproject(project):
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = [d for d in dependencies if isinstance(d, str) and d != "pip"]
    (pip,) = [d["pip"] for d in dependencies if isinstance(d, dict)]
    assert dict(map(split, conda + pip)) == {
        **dict(map(split, project["dependencies"])),
        **dict([split(f"python{project['requires-python']}")]),
    }


def test_a_second_set_up_has_nothing_to_do():
    assert subprocess.run(["make", "-q", ".venv/.installed"], cwd=ROOT, check=False).returncode == 0


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """What `pip install .` puts into site-packages."""
    directory = tmp_path_factory.mktemp("wheel")
    words = f"-m pip wheel --quiet --no-deps --no-build-isolation -w {directory} {ROOT}"
    subprocess.run([sys.executable, *words.split()], check=True)
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(directory / "site")
    return directory / "site"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("instrument.cli check", r"25 devices, no mistakes"),
        ("instrument.cli new 45-ID", r"made 45-ID: README.md, devices.yml"),
        ("virtual_beamline list", r"(?m)^gp:m1 +motor"),
        ("instrument.snapshot_cli --help", r"usage: bluesky_snapshot"),
    ],
)
def test_what_is_installed_has_all_that_its_commands_need(installed, tmp_path, words, told):
    done = subprocess.run(
        [sys.executable, "-P", "-m", *words.split()],
        cwd=tmp_path,
        env=clean_environment(tmp_path, PYTHONPATH=str(installed)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(told, done.stdout), done.stdout


def test_databrokers_configuration_is_installed(installed):
    """Beside the package, where sessions look for it."""
    assert (installed / "instrument" / "bluesky_class.yml").read_text() == (ROOT / "bluesky_class.yml").read_text()
