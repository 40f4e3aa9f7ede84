"""The site: what Sphinx builds, and with what. One command from the repository's root: ``make -C docs html``."""

import shutil
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE / "_ext"))

project = "iasolve"
author = "The iasolve authors"
copyright = author  # noqa: A001 (Sphinx's name)
release = metadata.version("iasolve")
version = release

extensions = [
    "commands",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "tutorials", "**/.ipynb_checkpoints"]
templates_path = ["_templates"]
nitpicky = False

# --- pages in Markdown -----------------------------------------------------------------------------------------------

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# --- formulas: MathJax from the package index, copied, so that pages need no network ----------------------------------


def _mathjax() -> Path:
    """A static folder that holds MathJax's single file for TeX in, SVG out."""
    target = HERE / "_build" / "mathjax" / "mathjax" / "tex-svg.js"
    target.parent.mkdir(parents=True, exist_ok=True)
    package = metadata.distribution("django-static-mathjax")
    shutil.copyfile(str(package.locate_file("mathjax/static/mathjax/es5/tex-svg.js")), target)
    return target.parents[1]


html_static_path = ["_static", str(_mathjax())]
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}  # the menu loads further files

# --- measured results: the tables that the scripts of benchmarks/ wrote -----------------------------------------------

_RESULTS = HERE / "results"
shutil.rmtree(_RESULTS, ignore_errors=True)
_RESULTS.mkdir()
_tables = {path: path.read_text("utf-8") for path in sorted((ROOT / "benchmarks" / "results").glob("*.md"))}
_titles = Counter(text.partition("\n")[0] for text in _tables.values())
for _path, _text in _tables.items():
    _title, _, _rest = _text.partition("\n")
    # of pages with one title the file's name says of which network each is: fig3_scales-cifar10
    _which = _path.stem.partition("-")[2].replace("-", " ") if _titles[_title] > 1 else ""
    (_RESULTS / _path.name).write_text(f"{_title}{f' ({_which})' if _which else ''}\n{_rest}", "utf-8")

# --- reference -------------------------------------------------------------------------------------------------------

autosummary_generate = True
autodoc_typehints = "none"  # numpy-style docstrings say types in words
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
add_module_names = False

# --- tutorials: scripts that the site runs ----------------------------------------------------------------------------

sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "auto_tutorials",
    "filename_pattern": r"[\\/]tutorial_",
    "within_subsection_order": "FileNameSortKey",
    "copyfile_regex": r".*\.toml",
    "download_all_examples": True,
    "remove_config_comments": True,
    "show_memory": False,
    "plot_gallery": True,
    "abort_on_example_error": True,
    "min_reported_time": 1,
    "write_computation_times": False,  # its page loads code from a network
}

# --- theme -----------------------------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = f"iasolve {release}"
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {"index": [], "reference/commands": []}
html_context = {"default_mode": "auto"}  # without it the theme writes an error to the console
html_theme_options = {
    "navbar_align": "left",
    "show_prev_next": True,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "secondary_sidebar_items": ["page-toc"],
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
suppress_warnings = [
    "config.cache",  # sphinx-gallery's settings hold a class
    "myst.header",  # tables of benchmarks/ begin at the level their scripts chose
]
