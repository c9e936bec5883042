"use strict";

// Colours and shapes, read from the style sheet so that light, dark and paper differ there alone.
function look() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return {
    ink: of("--ink"), muted: of("--muted"), line: of("--line"), shade: of("--shade"),
    engine: (number) => (number === undefined ? of("--muted") : of(`--c${number % 8}`)),
  };
}

const FONT = "12px system-ui, sans-serif";

function clipped(u, draw) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  draw(ctx, bbox);
  ctx.restore();
}

// What lies outside the measurement window: ramp and warm-up before it, drain after it.
function shaded(windowSeconds, colours) {
  return (u) => clipped(u, (ctx, { left, top, width, height }) => {
    const at = (seconds) => Math.min(Math.max(u.valToPos(seconds, "x", true), left), left + width);
    ctx.fillStyle = colours.shade;
    ctx.fillRect(left, top, at(0) - left, height);
    ctx.fillRect(at(windowSeconds), top, left + width - at(windowSeconds), height);
  });
}

// Intervals as bars through the points.
function whiskers(panel, colours) {
  return (u) => clipped(u, (ctx, { top, height }) => {
    const ratio = devicePixelRatio || 1;
    ctx.lineWidth = 1.5 * ratio;
    ctx.globalAlpha = 0.75;
    ctx.setLineDash([]);
    const at = (value) => {
      const place = value > u.scales.y.min ? u.valToPos(value, "y", true) : top + height;
      return Math.min(Math.max(place, top), top + height);
    };
    panel.series.forEach((series, i) => {
      if (!series.low || !u.series[i + 1].show) return;
      ctx.strokeStyle = colours.engine(series.engine);
      ctx.beginPath();
      panel.x.forEach((x, j) => {
        if (series.low[j] === null) return;
        const [place, low, high, cap] = [u.valToPos(x, "x", true), at(series.low[j]), at(series.high[j]), 3 * ratio];
        ctx.moveTo(place, low);
        ctx.lineTo(place, high);
        for (const end of [low, high]) {
          ctx.moveTo(place - cap, end);
          ctx.lineTo(place + cap, end);
        }
      });
      ctx.stroke();
    });
  });
}

// The x axis: where it ends, and what is written on it. Over time, a ramp or a drain takes no more room than the window.
function acrossAxis(axis, x, marks = x, windowSeconds = Infinity) {
  const [first, last] = [x[0], x[x.length - 1]];
  const room = (last - first || Math.abs(first) || 1) * 0.05;
  switch (axis.scale) {
    case "points":
      return { range: [first - room, last + room], splits: thinned(marks), values: short };
    case "log_points":
      return { log: true, range: [first / 1.15, last * 1.15], splits: thinned(marks), values: short };
    case "tail":
      return { log: true, range: [1, Math.max(last, 10)], splits: thinned([1, 2, 4, 10, 100, 1000], 40), values: percentile };
    case "time": {
      const [from, to] = [Math.max(first, -windowSeconds), Math.min(last, 2 * windowSeconds)];
      return { range: [from, to > from ? to : from + 1], values: (s) => `${s} s` };
    }
    default:
      return { range: [Math.min(0, first), last + room], values: short };
  }
}

// Marks at the points, as many of them as do not run into each other.
function thinned(x, apart = 26) {
  return (u, axis, low, high) => {
    const room = u.bbox.width / (devicePixelRatio || 1);
    const place = (value) => (u.valToPos(value, "x") || 0);
    let last = -Infinity;
    return room ? x.filter((value) => {
      const keep = place(value) - last >= apart;
      if (keep) last = place(value);
      return keep;
    }) : x;
  };
}

// The y axis: what holds all that is shown between these ends of the x axis.
function bounds(panel, shown, log, [first, last]) {
  let [low, high] = [Infinity, -Infinity];
  panel.series.forEach((series, i) => {
    if (!shown(i)) return;
    for (const values of [series.y, series.low, series.high]) {
      (values || []).forEach((value, j) => {
        if (value === null || (log && value <= 0) || panel.x[j] < first || panel.x[j] > last) return;
        if (value < low) low = value;
        if (value > high) high = value;
      });
    }
  });
  if (low > high) return log ? [1, 10] : [0, 1];
  if (log) return [low / 1.2, high * 1.2];
  return [Math.min(0, low), high > 0 ? high * 1.08 : 1];
}

function axes(colours, across, log, label) {
  const common = { stroke: colours.muted, font: FONT, grid: { stroke: colours.line, width: 1 }, ticks: { show: false } };
  const all = (u, splits) => splits;
  const named = label ? { label, labelFont: FONT, labelSize: 18, labelGap: 0 } : {};
  const bottom = { ...common, ...named, size: 24, filter: all, values: (u, splits) => splits.map(across.values) };
  if (across.splits) bottom.splits = across.splits;
  const left = { ...common, size: 52, filter: all, values: (u, splits) => splits.map(short) };
  if (log) left.splits = (u, axis, low, high) => powers(low, high);
  return [bottom, left];
}

const STYLES = { line: { width: 2 }, marked: { width: 2 }, faint: { width: 1, alpha: 0.6 }, dashed: { width: 1.5, dash: [6, 4], border: "dashed" }, fitted: { width: 1.5, dash: [2, 3], border: "dotted" } };

// Draws a panel of lines into `place`.
function lines(chart, panel, place, size, isShown) {
  const colours = look();
  const marked = panel.series.filter((one) => one.style === "marked");
  const marks = panel.x.filter((_, i) => marked.some((one) => one.y[i] !== null));
  const across = acrossAxis(chart.x, panel.x, marks, panel.window_s);
  const log = chart.y.scale === "log";
  const spaced = (values) => (log ? values.map((v) => (v > 0 ? v : null)) : values);
  const unit = chart.y.unit ? ` ${chart.y.unit}` : "";
  const series = panel.series.map((one) => ({
    label: one.name,
    stroke: colours.engine(one.engine),
    show: one.engine === undefined || isShown(one.engine),
    spanGaps: true,
    ...STYLES[one.style],
    points: { show: one.style === "marked" || one.y.filter((v) => v !== null).length === 1, size: 6, fill: colours.engine(one.engine) },
    value: (u, value, i, j) => {
      if (value === null || value === undefined) return "";
      const interval = one.low && one.low[j] !== null ? ` (${told(one.low[j])} to ${told(one.high[j])})` : "";
      return told(value) + unit + interval;
    },
  }));
  const shownNow = (u) => (i) => (u.series[i + 1] ? u.series[i + 1].show : true);
  const options = {
    ...size,
    padding: [8, 22, 0, 0],
    scales: {
      x: { time: false, distr: across.log ? 3 : 1, range: () => across.range },
      y: { distr: log ? 3 : 1, range: (u) => bounds(panel, shownNow(u), log, across.range) },
    },
    axes: axes(colours, across, log, chart.x.label),
    series: [{ label: chart.x.label, value: (u, value) => (value === null || value === undefined ? "" : across.values(value)) }, ...series],
    // A marker is drawn as its line is: solid, dashed or dotted.
    legend: { markers: { width: (u, i) => STYLES[panel.series[i - 1].style].width, stroke: (u, i) => u.series[i].stroke(), dash: (u, i) => STYLES[panel.series[i - 1].style].border || "solid" } },
    cursor: {
      focus: { prox: 24 },
      drag: { x: false, y: false },
      ...(chart.x.scale === "time" ? { sync: { key: "time", scales: ["x", null], setSeries: false } } : {}),
    },
    focus: { alpha: 0.35 },
    hooks: { drawClear: [], draw: [whiskers(panel, colours)] },
  };
  if (panel.window_s) options.hooks.drawClear.push(shaded(panel.window_s, colours));
  return new uPlot(options, [panel.x, ...panel.series.map((one) => spaced(one.y))], place);
}

// Draws a heat map into `place`, and what lies under the pointer into `readout`.
function heat(chart, panel, place, size, readout) {
  const colours = look();
  const map = panel.heat;
  const ends = [map.from_s, map.from_s + map.columns * map.column_s];
  const across = acrossAxis(chart.x, ends, ends, panel.window_s);
  const top = map.lowest_ms * map.ratio ** map.rows;
  const most = Math.max(...map.cells.map((cell) => cell[2]));
  const corner = (column, row) => [map.from_s + column * map.column_s, map.lowest_ms * map.ratio ** row];
  const draw = (u) => clipped(u, (ctx) => {
    ctx.fillStyle = colours.engine(map.engine);
    for (const [column, row, count] of map.cells) {
      const [x, y] = corner(column, row);
      const [right, upper] = corner(column + 1, row + 1);
      const [left, bottom] = [u.valToPos(x, "x", true), u.valToPos(y, "y", true)];
      ctx.globalAlpha = 0.18 + 0.82 * (most > 1 ? Math.log(count) / Math.log(most) : 1);
      ctx.fillRect(left, bottom, u.valToPos(right, "x", true) - left, u.valToPos(upper, "y", true) - bottom);
    }
  });
  const counts = new Map(map.cells.map(([column, row, count]) => [`${column} ${row}`, count]));
  const tell = (u) => {
    const { left, top: down } = u.cursor;
    if (left === undefined || left < 0) return void (readout.textContent = "");
    const column = Math.floor((u.posToVal(left, "x") - map.from_s) / map.column_s);
    const row = Math.floor(Math.log(u.posToVal(down, "y") / map.lowest_ms) / Math.log(map.ratio) + 1e-9);
    const [from, low] = corner(column, row);
    const count = counts.get(`${column} ${row}`) || 0;
    readout.textContent = `${from} to ${from + map.column_s} s, ${told(low)} to ${told(low * map.ratio)} ms: ${count} requests`;
  };
  const options = {
    ...size,
    padding: [8, 22, 0, 0],
    legend: { show: false },
    scales: {
      x: { time: false, range: () => across.range },
      y: { distr: 3, range: () => [map.lowest_ms, top] },
    },
    axes: axes(colours, across, true),
    series: [{}, { show: true, stroke: "transparent", points: { show: false } }],
    cursor: { drag: { x: false, y: false }, points: { show: false } },
    hooks: { drawClear: [shaded(panel.window_s, colours)], draw: [draw], setCursor: [tell] },
  };
  const filler = [map.lowest_ms, map.lowest_ms];
  return new uPlot(options, [across.range, filler], place);
}
