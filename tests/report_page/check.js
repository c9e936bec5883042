// Put before the page's own scripts: notes every error, uses the controls, and tells the page around it what it saw.
"use strict";
const failures = [];
addEventListener("error", (event) => failures.push(event.message));
addEventListener("securitypolicyviolation", (event) => failures.push(`policy: ${event.violatedDirective} ${event.blockedURI}`));
for (const kind of ["error", "warn"]) console[kind] = (...words) => failures.push(words.join(" "));

// Share of a canvas that is painted in the colour of an engine: axes, grid and shades are grey.
function painted(canvas) {
  const { width, height } = canvas;
  if (!width || !height) return 0;
  const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, width, height);
  let inked = 0;
  for (let i = 0; i < data.length; i += 4) {
    const [red, green, blue, opaque] = data.subarray(i, i + 4);
    inked += opaque > 60 && Math.max(red, green, blue) - Math.min(red, green, blue) > 50 ? 1 : 0;
  }
  return inked / (width * height);
}

function figures() {
  return [...document.querySelectorAll("figure")].map((figure) => ({
    id: figure.id,
    drawn: Number(figure.dataset.drawn),
    painted: [...figure.querySelectorAll("canvas")].map(painted),
  }));
}

// How far text and lines stand out from the paper, as WCAG 2.1 has it (relative luminance, contrast ratio).
function contrasts() {
  const style = getComputedStyle(document.documentElement);
  const luminance = (name) => {
    const hex = style.getPropertyValue(name).trim().slice(1);
    const digits = hex.length === 3 ? [...hex].map((digit) => digit + digit) : hex.match(/../g);
    const [red, green, blue] = digits.map((pair) => {
      const share = parseInt(pair, 16) / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ratio = (name) => {
    const [low, high] = [luminance(name), luminance("--paper")].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const engines = [0, 1, 2, 3, 4, 5, 6, 7].map((number) => ratio(`--c${number}`));
  return { text: Math.min(...["--ink", "--muted", "--warn", "--accent"].map(ratio)), engines: Math.min(...engines) };
}

// The page draws in microtasks: in the next task all of it is done.
const settled = () => new Promise((done) => setTimeout(done));

async function used() {
  const seen = {};
  await settled();
  seen.first = figures();
  seen.dark = matchMedia("(prefers-color-scheme: dark)").matches;
  seen.contrasts = contrasts();
  seen.picks = [...document.querySelectorAll("#picks tbody tr")].map((row) => row.textContent);
  seen.cards = document.querySelectorAll(".card").length;
  seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  // Every load can be chosen.
  seen.loads = {};
  for (const button of document.querySelectorAll("#load-choice button")) {
    button.click();
    await settled();
    seen.loads[button.textContent] = figures();
  }
  // An engine can be switched off and on, and its rows go with it.
  const rows = () => [...document.querySelectorAll(".figures tbody tr")].filter((row) => !row.hidden).length;
  seen.rows = [rows()];
  const [engine] = document.querySelectorAll("#engine-choice button");
  for (let i = 0; engine && i < 2; i++) {
    engine.click();
    await settled();
    seen.rows.push(rows());
  }
  // The pointer over a chart shows its values; the data opens.
  const over = document.querySelector("#throughput .u-over, figure .u-over");
  const box = over.getBoundingClientRect();
  const at = { bubbles: true, clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 };
  over.dispatchEvent(new MouseEvent("mouseenter", at));
  over.dispatchEvent(new MouseEvent("mousemove", at));
  await settled();
  seen.values = [...over.closest("figure").querySelectorAll(".u-value")].map((value) => value.textContent);
  for (const details of document.querySelectorAll("details.data")) details.open = true;
  await settled();
  seen.data = [...document.querySelectorAll("figure")].map((figure) => figure.querySelectorAll(".data tr").length);
  seen.links = document.querySelectorAll(".data a[download]").length;
  return seen;
}

addEventListener("load", async () => {
  let seen = {};
  try {
    seen = await used();
  } catch (error) {
    failures.push(String(error));
  }
  parent.postMessage(JSON.stringify({ ...seen, failures }), "*");
});
