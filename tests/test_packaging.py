"""One list of dependencies, seen three ways: pyproject.toml, constraints.txt, environment.yml."""

import ast
import importlib.metadata
import itertools
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

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
