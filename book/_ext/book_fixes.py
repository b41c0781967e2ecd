"""Repairs to Jupyter Book 1.x, each a few lines, and the local copies of MathJax and plotly."""

from __future__ import annotations

import hashlib
import shutil
from importlib import metadata
from pathlib import Path

from myst_nb.ext.glue.utils import PendingGlueReference

EXECUTED, SOURCES = "book/executed/", "notebooks/"
MATHJAX = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2/", "input/tex/extensions/")


def vendor(app, config):
    """Put MathJax and plotly into build/vendor, so that a built page loads nothing from elsewhere."""
    target = Path(app.srcdir) / "build" / "vendor"
    done = target / ".versions"
    versions = "".join(f"{name} {metadata.version(name)}\n" for name in ("sphinx-mathjax-offline", "plotly"))
    if done.is_file() and done.read_text() == versions:
        return
    copy_mathjax(target / "mathjax")
    from plotly.offline import get_plotlyjs

    (target / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    done.write_text(versions)


def copy_mathjax(target):
    """Copy the 2 MB a page needs out of the package's 24 MB."""
    for file in metadata.files("sphinx-mathjax-offline") or []:
        _, _, inner = file.as_posix().partition("static/mathjax/")
        if inner.startswith(MATHJAX):
            place = target / inner
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), place)
    if not (target / MATHJAX[0]).is_file():
        raise FileNotFoundError(f"the package sphinx-mathjax-offline holds no {MATHJAX[0]}; run: make setup")


def note_static_files(app, config):
    """Write all pages anew when a style sheet or script changed: Sphinx alone would not even copy it."""
    files = sorted((Path(app.srcdir) / "book" / "_static").iterdir())
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    config.book_static_digest = digest


def note_glue_dependencies(app, doctree):
    """Rebuild a page when a notebook it takes glued values from has changed."""
    for node in doctree.findall(PendingGlueReference):
        app.env.note_dependency(str(app.env.doc2path(node.refdoc)))


def drop_repeated_scripts(app, pagename, templatename, context, doctree):
    """Drop the second copy of sphinx-thebe's inline script: a 'const' error on every page."""
    seen, kept = set(), []
    for script in context.get("script_files", []):
        body = getattr(script, "attributes", {}).get("body")
        if body and body in seen:
            continue
        seen.add(body)
        kept.append(script)
    context["script_files"] = kept


def share_html_handlers(app):
    """Let single-page builds draw all nodes: one extension registers 'singlehtml', which hides all 'html'."""
    handlers = app.registry.translation_handlers
    if "singlehtml" in handlers:
        for name, pair in handlers.get("html", {}).items():
            handlers["singlehtml"].setdefault(name, pair)


def point_launch_buttons(app, pagename, templatename, context, doctree):
    """Send Binder to the source notebook: executed notebooks are not on the main branch."""
    if not pagename.startswith(EXECUTED):
        return
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button.get("text") == "Binder":
                source = SOURCES + pagename.removeprefix(EXECUTED)
                button["url"] = button["url"].replace(f"{pagename}.ipynb", f"{source}.ipynb")


FRONT_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<meta http-equiv="refresh" content="0; url={start}">
<link rel="icon" type="image/svg+xml" href="_static/{icon}">
</head>
<body><p><a href="{start}">{title}</a></p></body>
</html>
"""


def write_front_page(app, exception):
    """Send readers of the site's root to the book, with its icon: the plain redirect lets browsers ask for another."""
    if exception is not None or app.builder.name != "html":
        return
    icon = Path(app.config.html_favicon).name
    page = FRONT_PAGE.format(title=app.config.html_title, start=f"{app.config.master_doc}.html", icon=icon)
    (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def setup(app):
    """Connect the repairs to Sphinx."""
    app.add_config_value("book_static_digest", "", "html", [str])
    app.connect("config-inited", note_static_files)
    app.connect("config-inited", vendor, priority=100)  # before Sphinx looks whether the static paths exist
    app.connect("builder-inited", share_html_handlers)
    app.connect("doctree-read", note_glue_dependencies)
    app.connect("html-page-context", point_launch_buttons, priority=900)
    app.connect("build-finished", write_front_page, priority=400)  # before the plain redirect would be written
    app.connect("html-page-context", drop_repeated_scripts, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
