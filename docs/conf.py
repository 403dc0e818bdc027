"""How Sphinx makes the site: `make docs`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "System Tasks"
extensions = ["myst_parser", "source"]
exclude_patterns = ["_build"]
# A link that leads nowhere is a warning, and `make docs` takes a warning for an error.
nitpicky = True
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
smartquotes = False  # it would make a dash of the hyphens of an option

html_theme = "furo"
html_title = "System Tasks"
html_favicon = "../systemtasks/static/systemtasks/icon.svg"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
