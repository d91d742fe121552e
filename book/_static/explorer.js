// Two sliders over a grid of stored simulations: <script type="application/json" class="explorer-data">.
// The picture in the cell before it is what a reader without scripts sees; with them it is replaced.
(() => {
  "use strict";
  const NS = "http://www.w3.org/2000/svg";
  const svg = (name, attrs, ...children) => {
    const e = document.createElementNS(NS, name);
    for (const [k, v] of Object.entries(attrs)) e.setAttribute(k, v);
    e.append(...children);
    return e;
  };
  const html = (name, attrs, ...children) => {
    const e = Object.assign(document.createElement(name), attrs);
    e.append(...children);
    return e;
  };
  const round = (v) => String(Number(v.toPrecision(2)));

  // A value against one drive while the other is held: all its lines faint, the present one drawn.
  function plot(measure, axis, held, lines) {
    const [w, h, left, bottom, top] = [320, 190, 38, 34, 10];
    const lo = Math.min(...axis.values), hi = Math.max(...axis.values);
    const x = (v) => left + ((v - lo) / (hi - lo)) * (w - left - 12);
    const y = (v) => h - bottom - (v / measure.max) * (h - bottom - top);
    const path = (line) => line.map((v, i) => `${i ? "L" : "M"}${x(axis.values[i])} ${y(v)}`).join("");
    const now = svg("path", { class: "now" }), dot = svg("circle", { r: 5, class: "dot" });
    const text = (s, at) => svg("text", at, s);
    const root = svg("svg", { viewBox: `0 0 ${w} ${h}`, "aria-hidden": "true" },
      svg("path", { class: "axis", d: `M${left} ${top}V${h - bottom}H${w - 12}` }),
      ...lines.map((line) => svg("path", { class: "faint", d: path(line) })), now, dot,
      text("0", { x: left - 5, y: y(0) + 4, "text-anchor": "end" }),
      text(round(measure.max), { x: left - 5, y: y(measure.max) + 8, "text-anchor": "end" }),
      text(round(lo), { x: x(lo), y: h - bottom + 14, "text-anchor": "middle" }),
      text(round(hi), { x: x(hi), y: h - bottom + 14, "text-anchor": "end" }),
      text(`${axis.label} (${axis.unit})`, { x: (left + w) / 2, y: h - 5, "text-anchor": "middle" }));
    const title = html("p", { className: "title" });
    const show = (line, i) => {
      now.setAttribute("d", path(line));
      dot.setAttribute("cx", x(axis.values[i]));
      dot.setAttribute("cy", y(line[i]));
      const unit = measure.unit ? ` ${measure.unit}` : "";
      title.replaceChildren(html("strong", {}, `${measure.label}: ${round(line[i])}${unit}`),
        ` against ${axis.label}, ${held.label} held`);
    };
    return { node: html("div", { className: "panel" }, title, root), show };
  }

  // One row per neuron, one tick per spike; spikes closer than burst_ms are drawn as a burst.
  function raster(data) {
    const w = 660, row = 11, single = svg("path", { class: "single" }), burst = svg("path", { class: "burst" });
    const n = data.raster[0][0].length;
    const root = svg("svg", { viewBox: `0 0 ${w} ${n * row}`, "aria-hidden": "true", preserveAspectRatio: "none" }, single, burst);
    const show = (trains) => {
      const d = ["", ""];
      trains.forEach((train, k) => train.forEach((t, i) => {
        const near = (j) => j >= 0 && j < train.length && Math.abs(train[j] - t) <= data.burst_ms;
        d[near(i - 1) || near(i + 1) ? 1 : 0] += `M${(t / data.window_ms) * w} ${k * row + 1.5}v${row - 3}`;
      }));
      single.setAttribute("d", d[0]);
      burst.setAttribute("d", d[1]);
    };
    const caption = html("p", { className: "title" }, html("strong", {}, `${n} neurons, ${round(data.window_ms / 1000)} s`),
      " — one row each; ", html("span", { className: "key single" }, "single spikes"), " and ",
      html("span", { className: "key burst" }, "bursts"));
    return { node: html("div", { className: "panel wide" }, caption, root), show };
  }

  function build(source, index) {
    const data = JSON.parse(source.textContent), at = [data.x.start, data.y.start], sliders = [];
    const [first, second] = data.measures;
    const column = (z, j) => z.map((line) => line[j]);
    const plots = [
      plot(first, data.x, data.y, data.y.values.map((_, j) => column(first.z, j))),
      plot(second, data.y, data.x, second.z),
    ];
    const spikes = raster(data), said = html("p", { className: "said" });
    said.setAttribute("aria-live", "polite");
    const show = () => {
      const [i, j] = at;
      plots[0].show(column(first.z, j), i);
      plots[1].show(second.z[i], j);
      spikes.show(data.raster[i][j]);
      sliders.forEach((s, k) => {
        const axis = k ? data.y : data.x, words = `${axis.values[at[k]]} ${axis.unit}`;
        s.setAttribute("aria-valuetext", words);
        s.previousElementSibling.lastElementChild.textContent = words;
      });
      said.textContent = data.measures.map((m) => `${m.label} ${round(m.z[i][j])} ${m.unit}`.trim()).join(", ") + ".";
    };
    const controls = [data.x, data.y].map((axis, k) => {
      const id = `explorer-${index}-${k}`;
      const slider = html("input", { type: "range", id, min: 0, max: axis.values.length - 1, step: 1, value: at[k] });
      slider.addEventListener("input", () => { at[k] = Number(slider.value); show(); });
      sliders.push(slider);
      const label = html("label", { htmlFor: id }, `${axis.label}: `, html("output", {}));
      return html("div", { className: "control" }, label, slider);
    });
    const figure = html("div", { className: "explorer" }, ...controls, ...plots.map((p) => p.node), spikes.node, said);
    figure.setAttribute("role", "group");
    figure.setAttribute("aria-label", data.title);
    show();
    const cell = source.closest(".cell") || source.parentElement, still = cell.querySelector("img");
    if (still) still.replaceWith(figure); else source.after(figure);
  }

  const start = () => document.querySelectorAll("script.explorer-data").forEach(build);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start); else start();
})();
