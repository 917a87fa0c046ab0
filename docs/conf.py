"""How `make docs` builds the site: Markdown and notebooks, nothing executed, warnings are errors."""

from pathlib import Path
from typing import Any

from docs import generated  # `python -m sphinx` in the root of the repository finds it

HERE = Path(__file__).parent

project = "instrument"
copyright = "the authors; BSD 3-Clause"
extensions = ["myst_nb"]
exclude_patterns = ["_build", "_generated", "**/.ipynb_checkpoints"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the tests run them; here they are as they are kept, without outputs
smartquotes = False  # what is typed stays as it is
html_theme = "furo"
html_title = "instrument"
html_theme_options = {"source_repository": "", "navigation_with_keys": True}
html_copy_source = False
html_show_copyright = False


def _notebooks_here(_app: Any, name: str, source: list[str]) -> None:
    """Links to notebooks/, as GitHub needs them, lead to their pages."""
    depth = name.count("/")
    source[0] = source[0].replace("](../../notebooks/", "](" + "../" * depth + "tutorials/notebooks/")


def setup(app: Any) -> None:
    """What Sphinx calls; the generated pages have to be there before it looks for sources."""
    generated.write(HERE)
    app.connect("source-read", _notebooks_here)
