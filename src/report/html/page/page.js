"use strict";

const page = JSON.parse(document.getElementById("data").textContent);
const SECTIONS = { sweep: "How it goes with the load", requests: "Request by request", time: "Second by second" };
const chosen = { load: 0, hidden: new Set(), plots: [] };

const isShown = (engine) => !chosen.hidden.has(engine);

// The failures of the script itself, for whoever tests the page.
addEventListener("error", (event) => {
  document.documentElement.dataset.failed = event.message;
});

function swatch(engine) {
  return element("span", null, { class: "swatch", style: `--c: var(--c${engine % 8})` });
}

function controls() {
  const loads = document.getElementById("load-choice");
  const engines = document.getElementById("engine-choice");
  if (page.loads.length > 1 && page.loads.length <= 14) {
    loads.append(element("span", "Load:"));
    page.loads.forEach((load, i) => {
      const button = element("button", load.label, { type: "button", "aria-pressed": i === chosen.load });
      button.addEventListener("click", () => choose(i));
      loads.append(button);
    });
  } else if (page.loads.length > 1) {
    const select = element("select", null, { "aria-label": "Load" });
    page.loads.forEach((load, i) => select.append(element("option", load.label, { value: i })));
    select.value = chosen.load;
    select.addEventListener("change", () => choose(Number(select.value)));
    loads.append(element("span", "Load:"), select);
  }
  if (page.engines.length > 1) {
    engines.append(element("span", "Engines:"));
    page.engines.forEach((name, i) => {
      const button = element("button", null, { type: "button", "aria-pressed": true });
      button.append(swatch(i), name);
      button.addEventListener("click", () => toggle(i, button));
      engines.append(button);
    });
  }
  document.getElementById("controls").hidden = !loads.children.length && !engines.children.length;
}

function choose(load) {
  chosen.load = load;
  document.querySelectorAll("#load-choice button").forEach((b, i) => b.setAttribute("aria-pressed", i === load));
  glance();
  for (const chart of page.charts) if (chart.panels.some((panel) => panel.loads)) draw(chart);
}

function toggle(engine, button) {
  if (!chosen.hidden.delete(engine)) chosen.hidden.add(engine);
  button.setAttribute("aria-pressed", isShown(engine));
  for (const marked of document.querySelectorAll("[data-engine]")) {
    marked.hidden = !isShown(Number(marked.dataset.engine));
  }
  for (const { plot, panel } of chosen.plots) {
    if (panel.heat) continue;
    panel.series.forEach((series, i) => {
      if (series.engine === engine) plot.setSeries(i + 1, { show: isShown(engine) });
    });
  }
}

// The engines side by side under the chosen load.
function glance() {
  const section = document.getElementById("glance");
  const at = page.glances[chosen.load];
  document.querySelectorAll("tr[data-load]").forEach((row) => {
    row.classList.toggle("chosen", page.loads.length > 1 && Number(row.dataset.load) === chosen.load);
  });
  section.hidden = !at || !at.rows.length;
  if (section.hidden) return;
  const words = element("ul");
  for (const sentence of at.words) words.append(element("li", sentence));
  const cards = element("div", null, { class: "cards" });
  for (const row of at.rows) cards.append(card(row));
  const pick = page.picks[chosen.load];
  const beyond = pick && !pick.within ? ", beyond the limits" : "";
  const names = pick ? pick.take.map((engine) => page.engines[engine]).join(" or ") : "";
  const taken = names ? `: take ${names}${beyond}` : "";
  section.replaceChildren(element("h2", `At ${page.loads[chosen.load].label}${taken}`), words, cards);
}

function card(row) {
  const made = element("div", null, { class: "card" });
  const head = element("h3", row.name);
  const better = row.higher_is_better === undefined ? "" : row.higher_is_better ? "; more is better" : "; less is better";
  made.append(head, element("p", `${row.what}${better}`, { class: "hint" }));
  const values = row.values.filter((value) => value !== null);
  const most = Math.max(...values);
  const best = row.higher_is_better ? most : Math.min(...values);
  row.values.forEach((value, i) => {
    const leads = row.higher_is_better !== undefined && values.length > 1 && value === best && values.some((v) => v !== best);
    const bar = element("div", null, { class: leads ? "bar best" : "bar", "data-engine": i, style: `--c: var(--c${i % 8})` });
    const length = element("i", null, { style: `width: ${most > 0 && value > 0 ? (100 * value) / most : 0}%` });
    const figure = element("b", told(value));
    if (value !== null) figure.append(element("small", ` ${row.unit}`));
    bar.append(element("span", page.engines[i], { title: page.engines[i] }), figure);
    if (value !== null) bar.append(length);
    bar.hidden = !isShown(i);
    made.append(bar);
  });
  return made;
}

// Text with `code` in it.
function hint(text) {
  const made = element("p", null, { class: "hint" });
  text.split("`").forEach((part, i) => made.append(i % 2 ? element("code", part) : part));
  return made;
}

// The frame of every chart, in the order of the page.
function frames() {
  const place = document.getElementById("charts");
  for (const [name, title] of Object.entries(SECTIONS)) {
    const charts = page.charts.filter((chart) => chart.section === name);
    if (!charts.length) continue;
    const grid = element("div", null, { class: "grid" });
    for (const chart of charts) grid.append(element("figure", null, { id: chart.id, class: chart.kind === "heat" ? "wide" : "" }));
    place.append(element("h2", title), grid);
  }
  if (page.missing.length) {
    const list = element("ul", null, { class: "hint" });
    for (const words of page.missing) list.append(element("li", words));
    place.append(list);
  }
}

function draw(chart) {
  chosen.plots = chosen.plots.filter((one) => one.chart !== chart || one.plot.destroy());
  const figure = document.getElementById(chart.id);
  const perLoad = chart.panels.some((panel) => panel.loads);
  const panels = chart.panels.filter((panel) => !panel.loads || panel.loads.includes(chosen.load));
  const title = element("h3", chart.title);
  const unit = chart.y.unit && chart.y.unit !== "×" ? `, ${chart.y.unit}` : "";
  const at = perLoad && page.loads.length > 1 ? ` at ${page.loads[chosen.load].label}` : "";
  title.append(element("small", unit + at));
  const plots = element("div", null, { class: "plots" });
  figure.replaceChildren(title, hint(chart.hint), plots);
  figure.dataset.drawn = 0;
  if (!panels.length) {
    plots.append(element("p", "Nothing was measured under this load.", { class: "hint" }));
    return;
  }
  figure.append(dataOf(chart, panels));
  // All places are there before the first is measured: they share the width.
  const places = panels.map((panel) => {
    const place = element("div");
    if (panel.heat) {
      place.dataset.engine = panel.heat.engine;
      place.hidden = !isShown(panel.heat.engine);
    }
    plots.append(place);
    return place;
  });
  for (const [i, panel] of panels.entries()) {
    const place = places[i];
    const plot = panel.heat ? heatPlot(chart, panel, place) : lines(chart, panel, place, sizeOf(place), isShown);
    chosen.plots.push({ chart, panel, plot, place });
    figure.dataset.drawn = Number(figure.dataset.drawn) + (panel.heat ? 1 : panel.series.length);
  }
}

function heatPlot(chart, panel, place) {
  const name = element("div", null, { class: "name" });
  name.append(swatch(panel.heat.engine), page.engines[panel.heat.engine]);
  const [plot, readout] = [element("div"), element("div", null, { class: "readout" })];
  place.append(name, plot, readout);
  return heat(chart, panel, plot, sizeOf(place), readout);
}

function sizeOf(place) {
  const width = Math.max(place.clientWidth, 200);
  return { width, height: width < 420 ? 220 : 260 };
}

function drawAll() {
  page.charts.forEach(draw);
  document.documentElement.dataset.charts = page.charts.length;
}

// The load to begin with: in the middle of a sweep, where engines have parted and none is yet overwhelmed.
chosen.load = Math.floor((page.loads.length - 1) / 2);
for (const row of document.querySelectorAll("#picks tr[data-load]")) {
  row.addEventListener("click", () => choose(Number(row.dataset.load)));
}
controls();
glance();
frames();
drawAll();

let waiting = 0;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => chosen.plots.forEach(({ plot, place }) => plot.setSize(sizeOf(place))), 80);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
// Paper has another width and other colours.
matchMedia("print").addEventListener("change", drawAll);
addEventListener("beforeprint", () => {
  for (const findings of document.querySelectorAll("#findings details")) findings.open = true;
  drawAll();
});
