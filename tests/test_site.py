"""Open every page of the built book in headless Chromium.

Without Chromium, or before `make book`, these tests are skipped; with CI=true they fail instead.
"""

from __future__ import annotations

import functools
import html.parser
import http.server
import json
import os
import re
import threading
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


def documents() -> list[str]:
    """Return every page the table of contents names, in order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())

    def files(node):
        for key, value in node.items() if isinstance(node, dict) else []:
            if key in ("root", "file"):
                yield value
            for child in value if isinstance(value, list) else []:
                yield from files(child)

    return list(files(toc))


DOCUMENTS = documents()
NOTEBOOKS = [name for name in DOCUMENTS if name.startswith("book/executed/")]
TABLES = [name for name in NOTEBOOKS if not name.endswith("/chapter")]
every_page = pytest.mark.parametrize("document", DOCUMENTS)
every_table = pytest.mark.parametrize("document", TABLES)


def need(condition: bool, what: str) -> None:
    """Skip where something is missing, but fail in continuous integration."""
    if not condition:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(what)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that logs nothing."""

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture(scope="session")
def site():
    need((SITE / "index.html").is_file(), "there is no built book; run: make book")
    return SITE


@pytest.fixture(scope="session")
def base(site):
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    need(CHROMIUM.is_file(), f"there is no {CHROMIUM}; install Chromium or name it in CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def context(browser):
    """One profile for all tests, so that scripts and fonts are read once."""
    with browser.new_context(viewport=DESK) as context:
        yield context


@pytest.fixture
def page(context, base):
    """A page that fails its test on any console error, script error, failed or external request."""
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda m: wrong.append(f"{m.text} {m.location}") if m.type == "error" else None)
    page.on("request", lambda r: None if local(r.url, base) else wrong.append(f"external: {r.url}"))
    page.on("response", lambda r: wrong.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
    yield page
    page.close()
    assert wrong == []


def local(url: str, base: str) -> bool:
    return url.startswith((base + "/", "data:", "blob:"))


def show(page, base: str, document: str) -> None:
    """Open a page of the book and wait until its formulas are drawn."""
    page.goto(f"{base}/{document}.html", wait_until="load")
    page.wait_for_function("!window.MathJax || !MathJax.startup || MathJax.startup.promise.then(() => true)")


# --- files ------------------------------------------------------------------------------------------------


class Links(html.parser.HTMLParser):
    """Collect what a page links to, and the places on it that can be linked to."""

    def __init__(self):
        super().__init__()
        self.links, self.places = [], {""}

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.places.update(value for key, value in found.items() if key in ("id", "name") and value)
        wanted = {"a": "href", "link": "href", "img": "src", "script": "src"}.get(tag)
        if found.get(wanted) and not (tag == "link" and found.get("rel") in ("search", "canonical")):
            self.links.append(found[wanted])


@functools.cache
def parsed(path: Path) -> Links:
    parser = Links()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def broken(path: Path, link: str) -> bool:
    """Tell whether a link inside the site leads nowhere."""
    parts = urllib.parse.urlsplit(link)
    if parts.scheme or parts.netloc:
        return False
    name = urllib.parse.unquote(parts.path)
    goal = path if not name else (SITE / name.lstrip("/") if name.startswith("/") else path.parent / name)
    goal = goal / "index.html" if goal.is_dir() else goal
    if not goal.is_file():
        return True
    return goal.suffix == ".html" and urllib.parse.unquote(parts.fragment) not in parsed(goal).places


@every_page
def test_no_broken_link_or_missing_image(site, document):
    path = site / f"{document}.html"
    links = parsed(path).links
    assert len(links) > 10
    assert [link for link in links if broken(path, link)] == []


def test_front_page_redirects_to_the_welcome_page(page, base):
    page.goto(f"{base}/")
    page.wait_for_url("**/book/index.html")
    assert "Efficient Deep Learning" in page.locator("article h1").first.inner_text()


def test_front_page_names_the_icon(site):
    """Without it, a browser asks for /favicon.ico, which may or may not be answered before the redirect."""
    text = (site / "index.html").read_text(encoding="utf-8")
    [icon] = re.findall(r'<link rel="icon"[^>]*href="([^"]+)"', text)
    assert (site / icon).is_file()


@pytest.mark.parametrize("document", NOTEBOOKS)
def test_download_is_the_executed_notebook(site, document):
    links = parsed(site / f"{document}.html").links
    [link] = {link for link in links if link.endswith(".ipynb") and "://" not in link}
    content = (site / document).parent.joinpath(link).read_bytes()
    assert content == (ROOT / f"{document}.ipynb").read_bytes()
    assert any(cell.get("outputs") for cell in json.loads(content)["cells"])


# --- pages in the browser ---------------------------------------------------------------------------------


# One visit per page checks many things: loading a page costs far more than looking at it.
@every_page
def test_page_is_clean_readable_and_fits_a_phone(page, base, document):
    show(page, base, document)
    check_content(page)
    check_contrast(page, "light")
    check_contrast(page, "dark")
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], page.evaluate(WIDEST)


@every_table
def test_table_page_works(page, base, document):
    show(page, base, document)
    check_formulas(page)
    check_interactive_figures(page)
    check_sorting(page)
    check_solutions(page)


def check_content(page) -> None:
    assert page.locator("article h1").count() == 1
    assert page.evaluate("[...document.images].filter(i => !i.hasAttribute('alt')).length") == 0
    missing = "[...document.images].filter(i => i.checkVisibility() && !i.naturalWidth).map(i => i.src)"
    assert page.evaluate(missing) == []
    assert page.locator("mjx-merror").count() == 0


def check_contrast(page, theme: str) -> None:
    # What the theme's own button does; the colours change at once where nothing is animated.
    page.add_style_tag(content="* { transition: none !important; animation: none !important; }")
    page.evaluate("theme => Object.assign(document.documentElement.dataset, { theme, mode: theme })", theme)
    assert page.evaluate(FAINT) == [], theme


def check_formulas(page) -> None:
    written = page.locator("article .math").count()
    assert page.locator("article .math mjx-container").count() >= written
    assert page.locator("article .math").filter(has_not=page.locator("mjx-container")).count() == 0


def check_interactive_figures(page) -> None:
    for figure in page.locator(".nb-plotly").all():
        figure.locator(".main-svg").first.wait_for()
    assert page.locator(".nb-plotly:not(:has(.main-svg))").count() == 0


def check_sorting(page) -> None:
    header = page.locator("table.sortable").first.locator("thead th").first
    before = column(page, 0, 1)
    header.click()
    ascending = column(page, 0, 1)
    assert header.get_attribute("aria-sort") == "ascending"
    assert sorted(ascending) == sorted(before)
    header.locator("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    assert column(page, 0, 1) != ascending or len(set(before) - {""}) == 1  # empty cells stay last


def check_solutions(page) -> None:
    assert page.locator(".solution").count() == 2
    for solution in page.locator(".solution").all():
        content = solution.locator(".highlight-python")
        assert not content.is_visible()
        solution.locator("summary, button.toggle-button").first.click()
        content.wait_for(state="visible")


# Texts of the article whose contrast with what is behind them is below 4.5 (WCAG 2, level AA; 3 for large
# text). Code is left out: its colours are the theme's.
FAINT = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
  const behind = (node) => {
    const layers = [];
    for (let n = node; n; n = n.parentElement) layers.push(rgba(getComputedStyle(n).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const linear = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const contrast = (node) => {
    const ground = behind(node);
    const [a, b] = [light(over(rgba(getComputedStyle(node).color), ground)), light(ground)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const hasText = (node) => [...node.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  return [...document.querySelectorAll("article *")]
    .filter((n) => hasText(n) && n.checkVisibility({ checkOpacity: true }))
    .filter((n) => !n.closest("pre, code, script, style, svg, .headerlink, mjx-assistive-mml, .nb-plotly"))
    .filter((n) => contrast(n) < (parseFloat(getComputedStyle(n).fontSize) >= 24 ? 3 : 4.5))
    .map((n) => `${contrast(n).toFixed(2)} ${n.tagName}.${n.className}: ${n.textContent.slice(0, 40)}`);
}"""


WIDEST = """() => [...document.querySelectorAll("article *")]
  .filter(n => n.getBoundingClientRect().right > innerWidth + 1)
  .slice(0, 5).map(n => `${n.tagName}.${n.className}`)"""


def column(page, table: int, cell: int) -> list[str]:
    rows = page.locator("table.sortable").nth(table).locator(f"tbody tr > :nth-child({cell})")
    return [text.strip() for text in rows.all_inner_texts()]


SORT_TEST = """<!doctype html><html><body><article><table class="sortable"><thead>
<tr><th rowspan="2">a</th><th colspan="2">b</th></tr><tr><th>c</th><th>d</th></tr></thead>
<tbody>{rows}</tbody></table></article><script src="{base}/_static/nb.js"></script></body></html>"""
VALUES = ["92.42 ± 0.31", "", "−1.07 %", "1,024", "+0.9 pp", "not run", "9", "—"]


def test_numeric_sort_reads_what_people_write(page, base):
    rows = "".join(f"<tr><td>r{i}</td><td>{value}</td><td>x{i % 3}</td></tr>" for i, value in enumerate(VALUES))
    text = SORT_TEST.format(rows=rows, base=base)
    page.route(f"{base}/sort-test.html", lambda r: r.fulfill(body=text, content_type="text/html; charset=utf-8"))
    page.goto(f"{base}/sort-test.html")
    header = page.locator("th", has_text="c")
    numbers = ["−1.07 %", "+0.9 pp", "9", "92.42 ± 0.31", "1,024"]
    header.click()
    assert column(page, 0, 2) == [*numbers, "", "not run", "—"]
    header.click()
    assert column(page, 0, 2) == [*numbers[::-1], "", "not run", "—"]
    assert page.locator("th button").count() == 3, "a header over two columns sorts nothing"


def test_a_numbered_formula_uses_local_fonts(page, base):
    show(page, base, "book/verdicts")
    page.locator("mjx-container[display=true]").first.wait_for()
    loaded = "[...document.fonts].filter(font => font.status === 'loaded').map(font => font.family)"
    families = page.evaluate(f"document.fonts.ready.then(() => {loaded})")
    assert any("MJX" in family for family in families)


def test_search_finds_saliency(page, base):
    page.goto(f"{base}/search.html?q=saliency")
    page.locator("#search-results li a").first.wait_for()
    found = page.eval_on_selector_all("#search-results li a", "links => links.map(link => link.href)")
    assert any("bimask" in link for link in found)
