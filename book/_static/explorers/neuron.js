/* One integrate-and-fire neuron: <div data-explorer="neuron"></div>.

   Attributes set where it starts: data-neuron (if-soft, if-hard, lif-soft, lif-hard), data-input (constant, trains),
   data-threshold, data-time-steps, data-v0, data-drive, data-tau, data-plus and data-minus (steps with a spike, "1,2").

   snnbook.simulate is the neuron itself, for tests and for readers with a console. */
(function () {
  "use strict";

  const { element, shape, blank, drawAtEveryWidth, identifier } = window.snnbook;

  // Sums of decimals such as ten times 0.1 fall short of their value by a rounding error; thresholds allow for it.
  const EPS = 1e-9;

  /** One neuron over its drive.
   *  @param {{drive: number[], threshold?: number, v0?: number, neuron?: string, tau?: number}} options
   *    neuron: "if-soft", "if-hard", "lif-soft" or "lif-hard"; hard reset goes to 0.
   *  @returns {{before: number[], after: number[], spikes: number[], count: number, residual: number, ideal: ?number}}
   *    potential before and after the reset of each step, spikes, their number, v(T), and n* (IF, soft reset) or null. */
  function simulate({ drive, threshold = 1, v0 = 0, neuron = "if-soft", tau = 2 }) {
    const leaky = neuron.startsWith("lif"), soft = neuron.endsWith("soft");
    const before = [], after = [], spikes = [];
    let v = v0;
    for (const x of drive) {
      const h = leaky ? v - v / tau + x : v + x;
      const s = h >= threshold - EPS ? 1 : 0;
      v = soft ? h - threshold * s : (1 - s) * h;
      before.push(h);
      spikes.push(s);
      after.push(v);
    }
    const count = spikes.reduce((a, b) => a + b, 0);
    const ideal = leaky || !soft ? null : idealCount(drive, threshold, v0);
    return { before, after, spikes, count, residual: v, ideal };
  }

  /** n* = clip(floor((sum of the drive + v(0)) / threshold), 0, T). */
  function idealCount(drive, threshold, v0) {
    const charge = drive.reduce((a, b) => a + b, v0);
    return Math.min(Math.max(Math.floor(charge / threshold + EPS), 0), drive.length);
  }

  /** Drive of two inputs with weights +1 and -1 that spike at the given steps (counted from 1). */
  function driveOfTrains(timeSteps, plus, minus) {
    return Array.from({ length: timeSteps }, (_, i) => (plus.has(i + 1) ? 1 : 0) - (minus.has(i + 1) ? 1 : 0));
  }

  const show = (x) => (Math.abs(x) < 0.005 ? "0.00" : x.toFixed(2)).replace("-", "\u2212");
  const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

  /** What the picture says, in a sentence or two. */
  function describe(run, state) {
    const inside = run.residual >= -EPS && run.residual < state.threshold - EPS;
    let text = `n = ${plural(run.count, "output spike")} in T = ${plural(state.timeSteps, "step")}. `;
    if (run.ideal !== null) {
      const gap = run.count - run.ideal;
      text += `Ideal count n* = ${run.ideal}: `;
      text += gap === 0 ? "they agree. " : `${plural(Math.abs(gap), "spike")} too ${gap > 0 ? "many" : "few"}. `;
    }
    return `${text}Residual potential v(T) = ${show(run.residual)}, ${inside ? "inside" : "outside"} [0, θ).`;
  }

  /** Three panels over the same time axis: drive, potential, output spikes. */
  function draw(svg, width, run, drive, state) {
    const left = 74, right = 14, T = drive.length, column = (width - left - right) / T;
    const panel = { drive: [24, 84], potential: [112, 272], spikes: [300, 330] };
    const height = 362;
    blank(svg, width, height);
    const middle = (i) => left + (i + 0.5) * column, edge = (i) => left + i * column;
    const scale = ([top, bottom], low, high) => window.snnbook.scale(low, high, bottom, top);
    const line = (...points) => window.snnbook.line(svg, ...points);
    const label = (x, y, text, anchor = "end") => window.snnbook.label(svg, x, y, text, anchor);

    const xs = scale(panel.drive, Math.min(0, ...drive), Math.max(0, ...drive, 0.01));
    label(left - 8, (panel.drive[0] + panel.drive[1]) / 2 + 4, "drive x");
    line(left, xs(0), width - right, xs(0), "snn-axis");
    drive.forEach((x, i) => {
      const bar = Math.min(column * 0.5, 22), y = Math.min(xs(x), xs(0));
      const size = { x: middle(i) - bar / 2, y, width: bar, height: Math.abs(xs(x) - xs(0)) };
      shape(svg, "rect", { ...size, class: x < 0 ? "snn-minus" : "snn-plus" });
    });

    const values = [0, state.threshold, state.v0, ...run.before, ...run.after];
    const ys = scale(panel.potential, Math.min(...values), Math.max(...values));
    const band = { x: left, y: ys(state.threshold), width: width - left - right, height: ys(0) - ys(state.threshold) };
    shape(svg, "rect", { ...band, class: "snn-band" });
    line(left, ys(0), width - right, ys(0), "snn-axis");
    line(left, ys(state.threshold), width - right, ys(state.threshold), "snn-threshold");
    label(left - 8, ys(state.threshold) + 4, `θ = ${show(state.threshold)}`);
    if (ys(0) - ys(state.threshold) > 14) label(left - 8, ys(0) + 4, "0");
    let v = state.v0;
    run.before.forEach((h, i) => {
      line(edge(i), ys(v), middle(i), ys(v), "snn-potential");
      line(middle(i), ys(v), middle(i), ys(h), "snn-potential");
      v = run.after[i];
      if (run.spikes[i]) {
        line(middle(i), ys(h), middle(i), ys(v), "snn-reset");
        shape(svg, "circle", { cx: middle(i), cy: ys(h), r: 4, class: "snn-fired" });
      }
      line(middle(i), ys(v), edge(i + 1), ys(v), "snn-potential");
    });
    const inside = run.residual >= -EPS && run.residual < state.threshold - EPS;
    shape(svg, "circle", { cx: edge(T), cy: ys(v), r: 6, class: inside ? "snn-inside" : "snn-outside" });
    label(width - right, panel.potential[1] + 16, `v(T) = ${show(v)}`);
    label(left, panel.potential[0] - 8, "membrane potential v", "start");

    label(left - 8, (panel.spikes[0] + panel.spikes[1]) / 2 + 4, "output");
    line(left, panel.spikes[1], width - right, panel.spikes[1], "snn-axis");
    const every = Math.ceil(22 / column);
    run.spikes.forEach((s, i) => {
      if (s) line(middle(i), panel.spikes[0], middle(i), panel.spikes[1], "snn-spike");
      if ((i + 1) % every === 0 || i === 0) label(middle(i), panel.spikes[1] + 16, String(i + 1), "middle");
    });
    label(left - 8, panel.spikes[1] + 16, "step");
  }

  const HEADS = ["step", "drive", "potential before", "spike", "potential after"];
  const rowsOf = (run, drive) => drive.map((x, i) =>
    [String(i + 1), show(x), show(run.before[i]), String(run.spikes[i]), show(run.after[i])]);

  const SLIDERS = [
    { key: "threshold", text: "Threshold θ", min: 0.1, max: 3, step: 0.05 },
    { key: "timeSteps", text: "Time steps T", min: 1, max: 20, step: 1 },
    { key: "v0", text: "Initial potential v(0)", min: -2, max: 2, step: 0.05 },
    { key: "drive", text: "Drive each step", min: -1, max: 3, step: 0.05, when: (s) => s.input === "constant" },
    { key: "tau", text: "Time constant τ", min: 1.1, max: 10, step: 0.1, when: (s) => s.neuron.startsWith("lif") },
  ];
  const CHOICES = {
    neuron: { text: "Neuron", options: [["if-soft", "IF, soft reset"], ["if-hard", "IF, hard reset"],
      ["lif-soft", "leaky (LIF), soft reset"], ["lif-hard", "leaky (LIF), hard reset"]] },
    input: { text: "Input", options: [["constant", "constant drive"], ["trains", "two spike trains"]] },
  };

  function initialState(data) {
    const number = (name, otherwise) => (data[name] === undefined ? otherwise : Number(data[name]));
    const steps = (name, otherwise) => new Set((data[name] || otherwise).split(",").map(Number));
    return {
      neuron: data.neuron || "if-soft", input: data.input || "constant", threshold: number("threshold", 1),
      timeSteps: number("timeSteps", 8), v0: number("v0", 0), drive: number("drive", 0.35), tau: number("tau", 2),
      plus: steps("plus", "1,2"), minus: steps("minus", "3,4,5"),
    };
  }

  function neuronExplorer(root) {
    const id = identifier();
    let state = initialState(root.dataset);
    const controls = element("div", { class: "snn-controls" });
    const trains = element("div", { class: "snn-trains" });
    const svg = shape(null, "svg", { role: "img" });
    const picture = element("div", { class: "snn-picture" }, svg);
    const inputs = {};

    for (const [key, { text, options }] of Object.entries(CHOICES)) {
      const select = element("select", { id: `${id}-${key}` });
      options.forEach(([value, name]) => select.append(element("option", { value }, name)));
      select.addEventListener("change", () => { state[key] = select.value; update(); });
      inputs[key] = select;
      controls.append(element("div", {}, element("label", { for: select.id }, text), select));
    }
    for (const { key, text, min, max, step } of SLIDERS) {
      const slider = element("input", { type: "range", id: `${id}-${key}`, min, max, step });
      const shown = element("output", { for: slider.id });
      slider.addEventListener("input", () => { state[key] = Number(slider.value); update(); });
      inputs[key] = slider;
      slider.shown = shown;
      controls.append(element("div", { "data-control": key }, element("label", { for: slider.id }, text, shown), slider));
    }
    const again = element("button", { type: "button" }, "Start again");
    again.addEventListener("click", () => { state = initialState(root.dataset); update(); });
    const shuffle = element("button", { type: "button" }, "Shuffle the spikes");
    shuffle.addEventListener("click", () => {
      for (const key of ["plus", "minus"]) state[key] = shuffled(state[key], state.timeSteps);
      update();
    });
    const buttons = element("div", { class: "snn-buttons" }, shuffle, again);
    const { result, table } = window.snnbook.frame(root, "Explorer of one spiking neuron", picture, controls, trains, buttons);

    function shuffled(steps, timeSteps) {
      const free = Array.from({ length: timeSteps }, (_, i) => i + 1);
      const wanted = [...steps].filter((t) => t <= timeSteps).length;
      return new Set(Array.from({ length: wanted }, () => free.splice(Math.floor(Math.random() * free.length), 1)[0]));
    }

    /** Toggle buttons, one a step and input; they are kept while T stays, so that the focus does too. */
    function drawTrains() {
      if (trains.childElementCount !== 2 || trains.dataset.steps !== String(state.timeSteps)) {
        trains.dataset.steps = String(state.timeSteps);
        trains.replaceChildren(...[["plus", "+1"], ["minus", "\u22121"]].map(([key, weight]) => {
          const legend = element("legend", {}, `Input with weight ${weight}`);
          const row = element("fieldset", {}, legend);
          for (let t = 1; t <= state.timeSteps; t++) {
            const button = element("button", { type: "button", "data-train": key, "data-step": t,
              "aria-label": `Input ${weight}, step ${t}` }, String(t));
            button.addEventListener("click", () => {
              if (!state[key].delete(t)) state[key].add(t);
              update();
            });
            row.append(button);
          }
          return row;
        }));
      }
      trains.querySelectorAll("button").forEach((button) =>
        button.setAttribute("aria-pressed", state[button.dataset.train].has(Number(button.dataset.step))));
    }

    function update() {
      const isTrains = state.input === "trains";
      const drive = isTrains ? driveOfTrains(state.timeSteps, state.plus, state.minus)
        : Array(state.timeSteps).fill(state.drive);
      const run = simulate({ ...state, drive });
      for (const key of Object.keys(CHOICES)) inputs[key].value = state[key];
      for (const { key, when, step } of SLIDERS) {
        inputs[key].value = state[key];
        inputs[key].shown.textContent = `= ${step === 1 ? state[key] : show(state[key])}`;
        inputs[key].parentElement.hidden = when !== undefined && !when(state);
      }
      trains.hidden = shuffle.hidden = !isTrains;
      if (isTrains) drawTrains();
      draw(svg, Math.max(root.clientWidth - 2, 260), run, drive, state);
      result.textContent = describe(run, state);
      svg.setAttribute("aria-label", `Drive, membrane potential and output spikes. ${result.textContent}`);
      window.snnbook.tabulate(table, HEADS, rowsOf(run, drive));
    }

    drawAtEveryWidth(root, update);
  }

  Object.assign(window.snnbook, { simulate, idealCount, driveOfTrains });
  window.snnbook.explorers.neuron = neuronExplorer;
})();
