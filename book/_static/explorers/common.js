/* What the explorers of the book share: elements, SVG shapes, scales, ticks, and starting them.

   An explorer is a function of its <div data-explorer="name">, kept in snnbook.explorers by that name. None needs a
   kernel, a connection or a library. */
window.snnbook = (function () {
  "use strict";

  const SVG = "http://www.w3.org/2000/svg";

  function element(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  /** A shape of SVG at the end of `parent`. */
  function shape(parent, tag, attributes, text) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  }

  const line = (svg, x1, y1, x2, y2, kind) => shape(svg, "line", { x1, y1, x2, y2, class: kind });
  const label = (svg, x, y, text, anchor = "end", kind = "snn-label") =>
    shape(svg, "text", { x, y, class: kind, "text-anchor": anchor }, text);

  /** An empty drawing of that many pixels. */
  function blank(svg, width, height) {
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
  }

  /** A function from low … high to pixels from … to; with `log`, of their logarithms. */
  function scale(low, high, from, to, log = false) {
    const f = log ? Math.log10 : (x) => x;
    return (x) => from + ((f(x) - f(low)) / (f(high) - f(low) || 1)) * (to - from);
  }

  /** Round numbers between low and high: about `wanted` of them, or powers of ten (with 2 and 5, if those are few). */
  function ticks(low, high, log = false, wanted = 4) {
    if (!log) {
      const rough = (high - low || 1) / wanted, power = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
      const first = Math.ceil(low / step - 1e-9);
      return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
    }
    const decades = Array.from({ length: 40 }, (_, i) => 10 ** (i - 20));
    const inside = (values) => values.filter((v) => v >= low * 0.999 && v <= high * 1.001);
    const powers = inside(decades);
    return powers.length > 2 ? powers : inside(decades.flatMap((d) => [d, 2 * d, 5 * d]));
  }

  /** A table for readers who do not see the picture: heads, and rows of text. */
  function tabulate(table, heads, rows) {
    const row = (cells, tag) => element("tr", {}, ...cells.map((c) => element(tag, tag === "th" ? { scope: "col" } : {}, c)));
    table.replaceChildren(element("thead", {}, row(heads, "th")),
      element("tbody", {}, ...rows.map((cells) => row(cells, "td"))));
  }

  /** The frame of an explorer within `root`: picture, sentence and table, with `parts` above them. */
  function frame(root, title, picture, ...parts) {
    const result = element("p", { class: "snn-result", role: "status", "aria-live": "polite" });
    const table = element("table", { class: "table" });
    const details = element("details", {}, element("summary", {}, "The same as a table"),
      element("div", { class: "snn-scroll" }, table));
    root.classList.add("snn-explorer");
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", title);
    root.replaceChildren(...parts, picture, result, details);
    return { result, table };
  }

  /** Call `update` now, and whenever the width of `root` has changed. */
  function drawAtEveryWidth(root, update) {
    let width = root.clientWidth;
    new ResizeObserver(() => {
      if (root.clientWidth !== width) {
        width = root.clientWidth;
        update();
      }
    }).observe(root);
    update();
  }

  let instances = 0;
  const identifier = () => `snn-explorer-${++instances}`;
  const explorers = {};

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("[data-explorer]").forEach((root) => explorers[root.dataset.explorer](root));
  });
  return { explorers, element, shape, line, label, blank, scale, ticks, tabulate, frame, drawAtEveryWidth, identifier };
})();
