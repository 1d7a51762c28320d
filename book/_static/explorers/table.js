/* A table to explore: <div data-explorer="split|compression|noise"> with the table as JSON inside, written by
   snnbook.explorers.Explorer.

   The JSON: keys (columns that name rows: text, control, values, labels), x and series (columns of keys), panels
   (columns of numbers: text, digits, log, low, high), references (horizontal lines), lead and each (the sentence),
   start, rows (columns; those of keys hold numbers of entries in their values). Controls are ordered: each offers what
   exists where those before it are as chosen. */
(function () {
  "use strict";

  const { element, shape, line, label, blank, scale, ticks, tabulate, frame, drawAtEveryWidth, identifier } = window.snnbook;
  const MARKERS = ["circle", "square", "triangle", "diamond", "down", "plus", "cross"];

  /** The table and what can be asked of it; `chosen` maps columns of controls to numbers of entries. */
  class Table {
    constructor(data) {
      Object.assign(this, data);
      this.key = Object.fromEntries(data.keys.map((k) => [k.column, k]));
      this.controls = data.keys.filter((k) => k.control);
      this.order = Array.from(data.rows[data.x], (_, i) => i);
    }

    matching(chosen, columns) {
      return this.order.filter((i) => columns.every((c) => this.rows[c][i] === chosen[c]));
    }

    offered(chosen, column) {
      const before = this.controls.slice(0, this.controls.indexOf(this.key[column])).map((k) => k.column);
      const found = new Set(this.matching(chosen, before).map((i) => this.rows[column][i]));
      return this.key[column].values.map((_, v) => v).filter((v) => found.has(v));
    }

    /** `chosen`, and where a control does not offer its value, the nearest number or the first text. */
    settle(chosen) {
      const settled = {};
      for (const { column, values } of this.controls) {
        const offers = this.offered(settled, column), wanted = chosen[column];
        const gap = (v) => (typeof values[v] === "number" ? Math.abs(values[v] - values[wanted]) : 0);
        settled[column] = offers.includes(wanted) ? wanted : offers.reduce((a, b) => (gap(b) < gap(a) ? b : a));
      }
      return settled;
    }

    drawn(chosen) {
      const columns = this.controls.map((k) => k.column).filter((c) => c !== this.x && c !== this.series);
      return this.matching(chosen, columns);
    }

    picked(chosen) {
      return this.matching(chosen, this.controls.map((k) => k.column));
    }

    lines(chosen, column) {
      const holds = (r) => r.column === column && Object.entries(r.where).every(([c, v]) => chosen[c] === v);
      return this.references.filter(holds);
    }

    number(column, i) {
      if (this.rows[column][i] === null) return "not given";
      const { digits } = this.panels.find((p) => p.column === column);
      const form = { minimumFractionDigits: digits, maximumFractionDigits: digits };
      return this.rows[column][i].toLocaleString("en-GB", form);
    }

    sentence(chosen) {
      const text = (column, i) => {
        const key = this.key[column];
        return key ? key.labels[i === undefined ? chosen[column] : this.rows[column][i]] : this.number(column, i);
      };
      const fill = (template, i) => template.replace(/\{(\w+)\}/g, (_, column) => text(column, i));
      return `${fill(this.lead)} ${this.picked(chosen).map((i) => fill(this.each, i)).join("; ")}.`;
    }
  }

  /** Marker number `k` around (x, y), as a path of about r pixels. */
  function marker(svg, k, x, y, r, attributes) {
    const move = (points) => `M${points.map(([a, b]) => `${x + a * r} ${y + b * r}`).join("L")}`;
    const t = 0.35, bar = [[-1, -t], [-t, -t], [-t, -1], [t, -1], [t, -t], [1, -t], [1, t], [t, t], [t, 1], [-t, 1], [-t, t], [-1, t]];
    const turned = bar.map(([a, b]) => [(a - b) * 0.8, (a + b) * 0.8]);
    const paths = {
      circle: `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
      square: `${move([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]])}Z`,
      triangle: `${move([[0, -1.2], [1.1, 0.9], [-1.1, 0.9]])}Z`,
      diamond: `${move([[0, -1.3], [1.1, 0], [0, 1.3], [-1.1, 0]])}Z`,
      down: `${move([[0, 1.2], [1.1, -0.9], [-1.1, -0.9]])}Z`,
      plus: `${move(bar)}Z`, cross: `${move(turned)}Z`,
    };
    return shape(svg, "path", { ...attributes, d: paths[MARKERS[k % MARKERS.length]] });
  }

  /** Lowest and highest value of an axis: given, or those of the values with a little air. */
  function ends(panel, values) {
    const low = Math.min(...values), high = Math.max(...values);
    const air = panel.log ? 1.15 : 0.06 * (high - low || Math.abs(high) || 1);
    const below = panel.log ? low / air : Math.max(low - air, low >= 0 ? 0 : -Infinity);
    return [panel.low ?? below, panel.high ?? (panel.log ? high * air : high + air)];
  }

  const short = (v) => v.toLocaleString("en-GB", { maximumSignificantDigits: 3 });
  const markup = (table, i) =>
    `${table.key[table.series].labels[table.rows[table.series][i]]}, ${table.key[table.x].text} ${table.key[table.x].labels[table.rows[table.x][i]]}`;

  /** One panel: a line over x for each series, reference lines, and a mark through what is chosen. */
  function draw(svg, width, table, panel, chosen, pick) {
    const height = 250, box = { left: 52, right: width - 12, top: 30, bottom: height - 42 };
    const x = table.key[table.x], lines = table.lines(chosen, panel.column);
    const rows = table.drawn(chosen).filter((i) => table.rows[panel.column][i] !== null);
    const shown = rows.map((i) => table.rows[panel.column][i]);
    const [low, high] = ends(panel, [...shown, ...lines.map((r) => r.value)]);
    const at = rows.map((i) => x.values[table.rows[table.x][i]]);
    const sx = scale(Math.min(...at), Math.max(...at), box.left + 10, box.right - 10);
    const sy = scale(low, high, box.bottom, box.top, panel.log);
    blank(svg, width, height);
    label(svg, 2, 16, panel.text, "start", "snn-label snn-head");
    for (const v of ticks(low, high, panel.log)) {
      line(svg, box.left, sy(v), box.right, sy(v), "snn-grid");
      label(svg, box.left - 6, sy(v) + 4, short(v));
    }
    line(svg, box.left, box.bottom, box.right, box.bottom, "snn-axis");
    let free = -Infinity;
    for (const v of [...new Set(rows.map((i) => table.rows[table.x][i]))].sort((a, b) => a - b)) {
      const half = 3.5 * x.labels[v].length + 3, p = sx(x.values[v]);
      if (p - half > free) {
        label(svg, p, box.bottom + 16, x.labels[v], "middle");
        free = p + half;
      }
    }
    label(svg, (box.left + box.right) / 2, height - 6, x.text, "middle");
    const here = sx(x.values[chosen[table.x]]);
    line(svg, here, box.top, here, box.bottom, "snn-chosen");
    for (const { value } of lines) line(svg, box.left, sy(value), box.right, sy(value), "snn-reference");
    const picked = new Set(table.picked(chosen)), one = table.key[table.series].control;
    table.key[table.series].values.forEach((_, k) => {
      const mine = rows.filter((i) => table.rows[table.series][i] === k);
      mine.sort((a, b) => table.rows[table.x][a] - table.rows[table.x][b]);
      if (!mine.length) return;
      const point = (i) => [sx(x.values[table.rows[table.x][i]]), sy(table.rows[panel.column][i])];
      const strong = !one || chosen[table.series] === k, kind = `snn-series-${k % 7}${strong ? "" : " snn-weak"}`;
      shape(svg, "path", { d: `M${mine.map((i) => point(i).join(" ")).join("L")}`, class: `snn-curve ${kind}` });
      for (const i of mine) {
        const values = { "data-series": k, "data-x": table.rows[table.x][i], "data-value": table.rows[panel.column][i] };
        const mark = marker(svg, k, ...point(i), picked.has(i) ? 7 : 4, { ...values, class: `snn-mark ${kind}` });
        if (picked.has(i)) mark.classList.add("snn-picked");
        shape(mark, "title", {}, `${markup(table, i)}: ${table.number(panel.column, i)}`);
        mark.addEventListener("click", () => pick(i));
      }
    });
    for (const { value, text } of lines) {
      label(svg, box.right, sy(value) + (sy(value) < box.top + 14 ? 14 : -5), text, "end", "snn-label snn-halo");
    }
  }

  /** A control for one key: a list, or a slider over the values that are offered. */
  function control(key, id, choose) {
    const name = element("label", { for: id }, key.text);
    if (key.control === "choice") {
      const select = element("select", { id });
      select.addEventListener("change", () => choose(Number(select.value)));
      const show = (value, offers) => {
        if (offers.join() !== select.dataset.offers) {
          select.replaceChildren(...offers.map((v) => element("option", { value: v }, key.labels[v])));
          select.dataset.offers = offers.join();
        }
        select.value = value;
      };
      return { node: element("div", { "data-control": key.column }, name, select), show };
    }
    const slider = element("input", { type: "range", id, min: 0, step: 1 }), shown = element("output", { for: id });
    let offered = [];
    slider.addEventListener("input", () => choose(offered[Number(slider.value)]));
    name.append(shown);
    const show = (value, offers) => {
      offered = offers;
      slider.max = offers.length - 1;
      slider.disabled = offers.length < 2;
      slider.value = offers.indexOf(value);
      slider.setAttribute("aria-valuetext", key.labels[value]);
      shown.textContent = key.labels[value];
    };
    return { node: element("div", { "data-control": key.column }, name, slider), show };
  }

  /** What each line is: its marker and its name. */
  function legend(list, table, rows, chosen) {
    const key = table.key[table.series], there = new Set(rows.map((i) => table.rows[table.series][i]));
    list.replaceChildren(...key.labels.flatMap((text, k) => {
      if (!there.has(k)) return [];
      const svg = shape(null, "svg", { width: 26, height: 14, "aria-hidden": "true" });
      line(svg, 0, 7, 26, 7, `snn-curve snn-series-${k % 7}`);
      marker(svg, k, 13, 7, 4.5, { class: `snn-mark snn-series-${k % 7}` });
      const item = element("li", {}, svg, text);
      if (key.control && chosen[key.column] === k) item.classList.add("snn-strong");
      return [item];
    }));
  }

  function tableExplorer(root) {
    const table = new Table(JSON.parse(root.querySelector("script[type='application/json']").textContent));
    const id = identifier();
    let chosen = table.settle(table.start);
    const choose = (changes) => { chosen = table.settle({ ...chosen, ...changes }); update(); };
    const controls = table.controls.map((key) =>
      ({ key, ...control(key, `${id}-${key.column}`, (value) => choose({ [key.column]: value })) }));
    const names = element("ul", { class: "snn-legend" });
    const charts = table.panels.map((panel) => ({ panel, svg: shape(null, "svg", { role: "img", "data-panel": panel.column }) }));
    const picture = element("div", { class: "snn-panels" }, ...charts.map((c) => c.svg));
    const again = element("button", { type: "button" }, "Start again");
    again.addEventListener("click", () => choose(table.start));
    const { result, table: details } = frame(root, table.title, picture,
      element("div", { class: "snn-controls" }, ...controls.map((c) => c.node)),
      element("div", { class: "snn-buttons" }, again), names);

    /** A click on a point chooses its x and, if lines are chosen, its line. */
    function pick(i) {
      const columns = [table.x, table.series].filter((c) => table.key[c].control);
      choose(Object.fromEntries(columns.map((c) => [c, table.rows[c][i]])));
    }

    function update() {
      const rows = table.drawn(chosen), room = Math.max(root.clientWidth - 34, 250);
      for (const { key, show } of controls) show(chosen[key.column], table.offered(chosen, key.column));
      legend(names, table, rows, chosen);
      result.textContent = table.sentence(chosen);
      const least = charts.length > 2 ? 215 : 260;
      const beside = Math.min(charts.length, Math.max(1, Math.floor(room / least)));
      for (const { panel, svg } of charts) {
        draw(svg, Math.floor((room - 12 * (beside - 1)) / beside), table, panel, chosen, pick);
        svg.setAttribute("aria-label", `${panel.text} over ${table.key[table.x].text}. ${result.textContent}`);
      }
      const columns = [table.x, table.series], key = (c, i) => table.key[c].labels[table.rows[c][i]];
      tabulate(details, [...columns.map((c) => table.key[c].text), ...table.panels.map((p) => p.text)],
        rows.map((i) => [...columns.map((c) => key(c, i)), ...table.panels.map((p) => table.number(p.column, i))]));
    }

    drawAtEveryWidth(root, update);
  }

  for (const name of ["split", "compression", "noise"]) window.snnbook.explorers[name] = tableExplorer;
})();
