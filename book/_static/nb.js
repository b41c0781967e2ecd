// Sortable tables, scrollable wide tables and Plotly figures; needs no network. Without it all tables still show.
(() => {
  "use strict";
  const here = document.currentScript.src;

  // "92.42 ± 0.31", "−1.07 %", "1,024", "+0.9 pp" -> number; "not run", "—" and the like -> NaN
  const number = (text) => {
    const plain = text.replace(/\u2212|\u2013(?=\d)/g, "-").replace(/(\d)[,\u2009\u00a0](?=\d{3})/g, "$1");
    const match = plain.match(/^[^\w+\-.]*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(?![\w-])/i);
    return match ? Number(match[1]) : NaN;
  };
  const shown = (cell) => (cell.dataset.sort ?? cell.textContent).trim();

  function compareRows(rows, column) {
    const texts = new Map(rows.map((row) => [row, shown(row.cells[column])]));
    const filled = [...texts.values()].filter((text) => text && !/^(nan|[-\u2013\u2014])$/i.test(text));
    const numeric = filled.length > 0 && filled.filter((text) => !Number.isNaN(number(text))).length * 2 >= filled.length;
    const key = (row) => {
      const text = texts.get(row);
      if (numeric) return number(text);
      return filled.includes(text) ? text : NaN;
    };
    return (a, b, up) => {
      const [x, y] = [key(a), key(b)];
      const [noX, noY] = [Number.isNaN(x), Number.isNaN(y)];
      if (noX || noY) return noX - noY;  // cells without a value stay last in both directions
      const order = numeric ? x - y : x.localeCompare(y, undefined, { numeric: true });
      return up ? order : -order;
    };
  }

  function sortBy(table, header, column) {
    const up = header.getAttribute("aria-sort") !== "ascending";
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const compare = compareRows(rows, column);
    table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    rows.sort((a, b) => compare(a, b, up));
    body.append(...rows);
  }

  // The header cells that stand directly above one column each, with the number of that column.
  function columnHeaders(table) {
    const grid = [];
    [...table.tHead.rows].forEach((row, r) => {
      let c = 0;
      for (const cell of row.cells) {
        while (grid[r]?.[c]) c += 1;
        for (let i = r; i < r + cell.rowSpan; i += 1) {
          grid[i] ??= [];
          for (let j = c; j < c + cell.colSpan; j += 1) grid[i][j] = cell;
        }
        c += cell.colSpan;
      }
    });
    return (grid.at(-1) ?? []).map((cell, column) => [cell, column]).filter(([cell]) => cell?.colSpan === 1);
  }

  function makeSortable(table) {
    const body = table.tBodies[0];
    if (!table.tHead || !body) return;
    if ([...body.rows].some((row) => [...row.cells].some((cell) => cell.rowSpan > 1 || cell.colSpan > 1))) return;
    for (const [header, column] of columnHeaders(table)) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...header.childNodes);
      header.append(button);
      header.addEventListener("click", () => sortBy(table, header, column));
    }
  }

  // A table wider than the page scrolls inside its own box, by touch, wheel and arrow keys.
  function makeScrollable(table) {
    if (table.closest(".table-scroll, .pst-scrollable-table-container, .nb-plotly")) return;
    if (table.parentElement.closest("table")) return;
    const box = document.createElement("div");
    box.className = "table-scroll";
    table.before(box);
    box.append(table);
  }
  // A number with its interval stays on one line, sentences wrap but get room; a verdict gets its colour.
  const VERDICT = /^(reproduced|higher|lower|undetermined|not run|supported|contradicted|stale|failed)(?= \(|$)/;
  function dressCells(table) {
    for (const cell of table.querySelectorAll("td")) {
      const text = cell.textContent.trim();
      cell.classList.add(text.length <= 22 ? "short" : text.length <= 70 ? "medium" : "long");
      const verdict = table.matches(".sortable") && !cell.children.length && text.match(VERDICT);
      if (verdict) cell.classList.add("verdict", verdict[1].replace(" ", "-"));
    }
  }
  function letKeysScroll() {
    const boxes = [...document.querySelectorAll(".table-scroll, .pst-scrollable-table-container")];
    boxes.forEach((box) => { box.classList.remove("wide"); box.removeAttribute("tabindex"); });
    // All are measured before any changes: a browser lays the page out once, not once per table.
    boxes.filter((box) => box.scrollWidth > box.clientWidth).forEach((box) => {
      box.classList.add("wide");
      box.tabIndex = 0;
      box.setAttribute("role", "region");
      box.setAttribute("aria-label", box.querySelector("caption")?.textContent.trim() || "Table, scrolls sideways");
    });
  }

  // Okabe and Ito's colours without black and yellow: told apart by everyone, readable on white and on black.
  const COLORS = ["#3a8dde", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
  function draw(div) {
    const spec = JSON.parse(document.querySelector(`script[data-for="${CSS.escape(div.id)}"]`).textContent);
    const ink = getComputedStyle(document.body).color;
    const clear = "rgba(0,0,0,0)", faint = "rgba(128,128,128,0.35)";
    const layout = { colorway: COLORS, ...spec.layout, paper_bgcolor: clear, plot_bgcolor: clear,
      font: { ...spec.layout.font, color: ink } };
    for (const axis of new Set(["xaxis", "yaxis", ...Object.keys(layout).filter((key) => /^[xyz]axis\d*$/.test(key))])) {
      layout[axis] = { gridcolor: faint, zerolinecolor: faint, linecolor: faint, ...layout[axis] };
    }
    return window.Plotly.react(div, spec.data, layout, { responsive: true, displaylogo: false });
  }
  function showPlots() {
    const divs = [...document.querySelectorAll(".nb-plotly")];
    if (!divs.length) return;
    const script = document.createElement("script");
    script.src = new URL("plotly.min.js", here).href;
    script.onload = () => {
      divs.forEach(draw);
      new MutationObserver(() => divs.forEach(draw))
        .observe(document.documentElement, { attributeFilter: ["data-theme"] });
    };
    document.head.append(script);
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("table.sortable").forEach(makeSortable);
    document.querySelectorAll("article table").forEach((table) => { dressCells(table); makeScrollable(table); });
    letKeysScroll();
    window.addEventListener("resize", letKeysScroll);
    showPlots();
  });
})();
