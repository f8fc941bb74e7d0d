// Draws the charts and the samples from the JSON in the page. No library does: page.py has the
// comparison. Text only ever enters the page as text nodes, so nothing a model wrote can become markup.
(() => {
  const { el, sample } = cards;
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const DASHES = ["", "7 4", "2 3"];
  const TOLD = 12; // lines that a tip tells of
  const BANDED = 8; // settings shown with bands and single seeds; those of more would hide each other
  const hidden = new Set();
  let axis = "step";
  let wide = false; // bands from the least to the most, not by standard error
  let smoothing = 0;

  function svg(name, attributes, parent) {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (parent) parent.append(node);
    return node;
  }
  function swatch(color) {
    const mark = el("span", { class: "swatch" });
    mark.style.background = color;
    return mark;
  }

  // ------------------------------------------------------------ numbers
  function shown(value) {
    const size = Math.abs(value);
    if (value === 0) return "0";
    if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replace(".0e", "e").replace("e+", "e");
    return String(Number(value.toPrecision(size >= 1000 ? 4 : 3)));
  }
  function clock(seconds) {
    if (seconds < 120) return `${shown(seconds)} s`;
    return seconds < 7200 ? `${shown(seconds / 60)} min` : `${shown(seconds / 3600)} h`;
  }
  function ticks(low, high, wanted) {
    const raw = (high - low) / wanted || 1;
    const unit = 10 ** Math.floor(Math.log10(raw));
    const step = unit * [1, 2, 5, 10].reduce((a, b) => (Math.abs(Math.log(b * unit / raw)) < Math.abs(Math.log(a * unit / raw)) ? b : a));
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
    return found;
  }
  function timeTicks(high, wanted) {
    const unit = high < 120 ? 1 : high < 7200 ? 60 : 3600;
    return ticks(0, high / unit, wanted).map((t) => t * unit);
  }
  function smooth(values) { // exponential moving average, corrected for its start
    let sum = 0, weight = 0;
    return values.map((value) => {
      sum = smoothing * sum + (1 - smoothing) * value;
      weight = smoothing * weight + (1 - smoothing);
      return sum / weight;
    });
  }

  // ------------------------------------------------------------ charts
  function visible(chart) {
    const found = [];
    chart.curves.forEach((byMetric, group) => {
      if (hidden.has(group)) return;
      byMetric.forEach((curve, metric) => {
        if (!curve) return;
        const [mean, low, high] = [curve.mean, wide ? curve.least : curve.low, wide ? curve.most : curve.high].map(smooth);
        const seeds = curve.seeds.map((seed) => ({ x: seed[axis], y: smooth(seed.value) }));
        found.push({ group, metric, x: curve[axis], mean, low, high, n: curve.n, seeds });
      });
    });
    return found;
  }

  function extent(lines) {
    let x1 = 0, low = Infinity, high = -Infinity;
    for (const line of lines) {
      x1 = Math.max(x1, line.x[line.x.length - 1]);
      for (let i = 0; i < line.mean.length; i++) {
        low = Math.min(low, line.low[i]);
        high = Math.max(high, line.high[i]);
      }
      for (const seed of line.seeds) {
        x1 = Math.max(x1, ...seed.x);
        low = Math.min(low, ...seed.y);
        high = Math.max(high, ...seed.y);
      }
    }
    if (low === high) { const pad = Math.abs(low) * 0.1 || 0.5; low -= pad; high += pad; }
    if (low > 0 && low < 0.5 * high) low = 0;
    return { x1: x1 || 1, low, high: high + (high - low) * 0.04 };
  }

  function draw(box, chart) {
    const old = box.querySelector(".plot");
    const lines = visible(chart);
    const width = Math.max(240, box.clientWidth - 24), height = Math.round(Math.min(280, width * 0.62));
    const root = svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": chart.title });
    if (old) old.replaceWith(root); else box.append(root);
    if (!lines.length) {
      svg("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, root).textContent = "nothing selected";
      box.onpointermove = box.onpointerleave = null;
      return;
    }
    const { x1, low, high } = extent(lines);
    const yTicks = ticks(low, high, 5);
    const left = 14 + 6.2 * Math.max(...yTicks.map((t) => shown(t).length)), right = width - 14, top = 10, bottom = height - 24;
    const X = (x) => left + ((right - left) * x) / x1;
    const Y = (y) => bottom - ((bottom - top) * (y - low)) / (high - low);
    for (const t of yTicks) {
      svg("line", { x1: left, x2: right, y1: Y(t), y2: Y(t), stroke: "var(--grid)" }, root);
      svg("text", { x: left - 6, y: Y(t) + 4, "text-anchor": "end" }, root).textContent = shown(t);
    }
    const wanted = Math.max(2, Math.floor(width / 110));
    for (const t of axis === "time" ? timeTicks(x1, wanted) : ticks(0, x1, wanted)) {
      svg("text", { x: X(t), y: bottom + 17, "text-anchor": X(t) > right - 20 ? "end" : "middle" }, root).textContent = axis === "time" ? clock(t) : shown(t);
    }
    svg("line", { x1: left, x2: right, y1: bottom, y2: bottom, stroke: "var(--line)" }, root);
    if (new Set(lines.map((line) => line.group)).size <= BANDED) {
      for (const line of lines) single(root, line, X, Y);
      for (const line of lines) band(root, line, X, Y);
    }
    for (const line of lines) stroke(root, line, X, Y);
    hover(box, root, chart, lines, { X, Y, left, right, top, bottom, x1 });
  }

  function band(root, line, X, Y) {
    if (line.low.every((value, i) => value === line.high[i])) return;
    const up = line.x.map((x, i) => `${X(x).toFixed(1)},${Y(line.high[i]).toFixed(1)}`);
    const down = line.x.map((x, i) => `${X(x).toFixed(1)},${Y(line.low[i]).toFixed(1)}`).reverse();
    svg("polygon", { class: "band", points: [...up, ...down].join(" "), fill: data.groups[line.group].color, opacity: 0.16 }, root);
  }

  function single(root, line, X, Y) {
    for (const seed of line.seeds) {
      const points = seed.x.map((x, i) => `${X(x).toFixed(1)},${Y(seed.y[i]).toFixed(1)}`);
      svg("polyline", { class: "seed", points: points.join(" "), fill: "none", stroke: data.groups[line.group].color, opacity: 0.4 }, root);
    }
  }

  function stroke(root, line, X, Y) {
    const color = data.groups[line.group].color;
    const points = line.x.map((x, i) => `${X(x).toFixed(1)},${Y(line.mean[i]).toFixed(1)}`);
    svg("polyline", { class: "curve", points: points.join(" "), fill: "none", stroke: color, "stroke-width": 2,
      "stroke-linejoin": "round", "stroke-dasharray": DASHES[line.metric % 3] }, root);
    for (const stop of data.groups[line.group].stops) {
      const i = line.x.filter((x) => x <= stop[axis]).length - 1;
      if (i < 0) continue;
      svg("text", { class: "stop", x: X(line.x[i]), y: Y(line.mean[i]) + 5, "text-anchor": "middle", style: `fill:${color}` }, root).textContent = "✕";
    }
    if (line.x.length > 30) return;
    for (const point of points) {
      const [cx, cy] = point.split(",");
      svg("circle", { cx, cy, r: 2.6, fill: color }, root);
    }
  }

  function hover(box, root, chart, lines, place) {
    const rule = svg("line", { y1: place.top, y2: place.bottom, stroke: "var(--soft)", "stroke-dasharray": "2 3", visibility: "hidden" }, root);
    const tip = box.querySelector(".tip");
    box.onpointerleave = () => { tip.hidden = true; rule.setAttribute("visibility", "hidden"); };
    box.onpointermove = (event) => {
      const frame = root.getBoundingClientRect();
      const at = ((event.clientX - frame.left - place.left) / (place.right - place.left)) * place.x1;
      if (at < 0 || at > place.x1 * 1.02) { box.onpointerleave(); return; }
      const near = lines.map((line) => {
        let best = 0;
        line.x.forEach((x, i) => { if (Math.abs(x - at) < Math.abs(line.x[best] - at)) best = i; });
        return { line, i: best };
      });
      const closest = near.reduce((a, b) => (Math.abs(a.line.x[a.i] - at) <= Math.abs(b.line.x[b.i] - at) ? a : b));
      const x = closest.line.x[closest.i];
      rule.setAttribute("x1", place.X(x));
      rule.setAttribute("x2", place.X(x));
      rule.setAttribute("visibility", "visible");
      tip.replaceChildren(el("strong", {}, axis === "time" ? clock(x) : `step ${x}`), ...told(near, event.clientY - frame.top, place).map(({ line, i }) => row(chart, line, i)));
      if (near.length > TOLD) tip.append(el("div", {}, `${near.length - TOLD} more, further from the pointer`));
      tip.hidden = false;
      const onLeft = place.X(x) > (place.left + place.right) / 2;
      tip.style.left = onLeft ? "auto" : `${place.X(x) + 26}px`;
      tip.style.right = onLeft ? `${frame.width - place.X(x) + 26}px` : "auto";
      tip.style.top = "46px";
    };
  }

  function told(near, y, place) { // of many lines those closest to the pointer, in their order
    if (near.length <= TOLD) return near;
    const away = ({ line, i }) => Math.abs(place.Y(line.mean[i]) - y);
    const least = [...near].sort((a, b) => away(a) - away(b)).slice(0, TOLD);
    return near.filter((item) => least.includes(item));
  }

  function row(chart, line, i) {
    const group = data.groups[line.group];
    const error = (line.high[i] - line.low[i]) / 2;
    const about = wide ? ` (${shown(line.low[i])} to ${shown(line.high[i])})` : ` ± ${shown(error)}`;
    const name = [group.name, chart.labels[line.metric]].filter(Boolean).join(", ");
    const at = axis === "step" ? "" : `, step ${chart.curves[line.group][line.metric].step[i]}`;
    const n = group.n > 1 ? ` (n = ${line.n[i]}${at})` : at && ` (${at.slice(2)})`;
    return el("div", {}, swatch(group.color), `${name}: ${shown(line.mean[i])}${error ? about : ""}${n}`);
  }

  // ------------------------------------------------------------ page
  const boxes = data.charts.map((chart) => {
    const unit = el("span", { class: "unit" }, chart.unit ? ` ${chart.unit}` : "");
    const box = el("div", { class: "chart" }, el("h3", {}, chart.title, unit), el("div", { class: "tip", hidden: "" }));
    if (chart.labels.length > 1) box.append(el("div", { class: "dashes" }, ...chart.labels.map(dash)));
    document.querySelector(`[data-section="${chart.section}"]`).append(box);
    return box;
  });
  function dash(label, i) {
    const mark = svg("svg", { width: 26, height: 8 });
    mark.style.cssText = "display:inline-block;width:26px;margin-right:5px";
    svg("line", { x1: 0, x2: 26, y1: 4, y2: 4, stroke: "currentColor", "stroke-width": 2, "stroke-dasharray": DASHES[i] }, mark);
    const holder = el("span", {}, label);
    holder.prepend(mark);
    return holder;
  }
  function redraw() { boxes.forEach((box, i) => { if (box.clientWidth) draw(box, data.charts[i]); }); }

  const legend = document.getElementById("legend");
  data.groups.forEach((group, i) => {
    const button = el("button", { type: "button", "aria-pressed": "true", title: "show or hide" }, swatch(group.color), group.name);
    button.onclick = () => {
      if (!hidden.delete(i)) hidden.add(i);
      button.setAttribute("aria-pressed", String(!hidden.has(i)));
      redraw();
    };
    legend.append(button);
  });
  function choice(key, set) {
    const buttons = [...document.querySelectorAll(`[data-${key}]`)];
    for (const button of buttons) {
      button.onclick = () => {
        set(button.dataset[key]);
        for (const b of buttons) b.setAttribute("aria-pressed", String(b === button));
        redraw();
      };
    }
  }
  choice("axis", (value) => { axis = value; });
  choice("band", (value) => { wide = value === "range"; });
  const slider = document.getElementById("smoothing");
  if (slider) slider.oninput = () => { smoothing = Number(slider.value); redraw(); };
  for (const details of document.querySelectorAll("details")) details.addEventListener("toggle", redraw);
  let width = 0;
  new ResizeObserver(() => {
    if (document.body.clientWidth !== width) { width = document.body.clientWidth; redraw(); }
  }).observe(document.body);

  // ------------------------------------------------------------ samples
  const which = document.getElementById("which"), when = document.getElementById("when");
  function fill() {
    const steps = data.samples[Number(which.value)].steps;
    const { step, rows } = steps[Math.min(Number(when.value), steps.length - 1)];
    document.getElementById("step").textContent = `step ${step}`;
    document.getElementById("samples").replaceChildren(...rows.map((item) => sample(item)));
  }
  function select() {
    const last = data.samples[Number(which.value)].steps.length - 1;
    when.max = last;
    when.value = last;
    fill();
  }
  if (which) {
    data.samples.forEach((source, i) => which.append(el("option", { value: i }, source.name)));
    which.onchange = select;
    when.oninput = fill;
    select();
  }
})();
