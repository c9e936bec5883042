"use strict";

// The rows behind what a chart shows now, with a head.
function rowsOf(chart, panels) {
  if (chart.kind === "heat") {
    const rows = [["engine", "from s", "to s", "TTFT from ms", "TTFT to ms", "requests"]];
    for (const { heat } of panels) {
      for (const [column, row, count] of heat.cells) {
        const from = heat.from_s + column * heat.column_s;
        const low = heat.lowest_ms * heat.ratio ** row;
        rows.push([page.engines[heat.engine], from, from + heat.column_s, low, low * heat.ratio, count]);
      }
    }
    return rows;
  }
  const [panel] = panels;
  const unit = chart.y.unit ? ` ${chart.y.unit}` : "";
  const x = chart.x.scale === "tail" ? panel.x.map(percentile) : panel.x;
  const columns = [[chart.x.label + (chart.x.unit ? ` ${chart.x.unit}` : ""), x]];
  for (const series of panel.series) {
    columns.push([series.name + unit, series.y]);
    if (series.low) columns.push([`${series.name} from`, series.low], [`${series.name} to`, series.high]);
  }
  return [columns.map((c) => c[0]), ...panel.x.map((_, i) => columns.map((c) => c[1][i]))];
}

function csv(rows) {
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    const text = String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(",") + "\n").join("");
}

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function link(text, type, file, content) {
  return element("a", text, { download: file, href: `data:${type};charset=utf-8,${encodeURIComponent(content)}` });
}

// The data of a chart behind a line that opens it; made when it is opened.
function dataOf(chart, panels) {
  const details = element("details", null, { class: "data" });
  details.append(element("summary", "Data"));
  details.addEventListener("toggle", () => {
    if (!details.open || details.children.length > 1) return;
    const rows = rowsOf(chart, panels);
    const json = JSON.stringify({ title: chart.title, x: chart.x, y: chart.y, panels });
    const body = element("div");
    body.append(
      link("CSV", "text/csv", `${chart.id}.csv`, csv(rows)),
      link("JSON", "application/json", `${chart.id}.json`, json),
    );
    const table = element("table");
    for (const [i, row] of rows.slice(0, 500).entries()) {
      const line = element("tr");
      for (const value of row) line.append(element(i ? "td" : "th", typeof value === "number" ? told(value) : value));
      table.append(line);
    }
    const scroll = element("div", null, { class: "scroll" });
    scroll.append(table);
    body.append(scroll);
    if (rows.length > 500) body.append(element("p", `The first 500 of ${rows.length - 1} rows; the files have all.`, { class: "hint" }));
    details.append(body);
  });
  return details;
}
