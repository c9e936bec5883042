"use strict";

// A number as a person reads it: three digits, thousands apart.
function told(value) {
  if (value === null || value === undefined || !isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 100) return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, "\u2009");
  if (size === 0) return "0";
  if (size >= 10) return value.toFixed(1);
  if (size >= 1) return value.toFixed(2);
  return Number(value.toPrecision(3)).toString();
}

// A number on an axis: without the digits that say nothing.
function short(value) {
  const size = Math.abs(value);
  if (size >= 10000) return told(value / 1000).replace(/\.0+$/, "") + "k";
  return size >= 100 ? told(value) : Number(value.toPrecision(3)).toString();
}

// The percentile that `1 / (1 - quantile)` stands for.
function percentile(beyond) {
  const percent = 100 * (1 - 1 / beyond);
  return Number(percent.toFixed(beyond >= 100 ? 2 : 1)) + " %";
}

// Ticks at 1, 2 and 5 times the powers of ten, or at the powers alone where these would be too many.
function powers(low, high) {
  const of = (steps) => {
    const found = [];
    for (let decade = Math.floor(Math.log10(low)) - 1; decade <= Math.ceil(Math.log10(high)); decade++) {
      for (const step of steps) {
        const tick = Number((step * 10 ** decade).toPrecision(3));
        if (tick >= low && tick <= high) found.push(tick);
      }
    }
    return found;
  };
  const all = of([1, 2, 5]);
  if (all.length > 9) return of([1]);
  return all.length < 3 ? of([1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]) : all;
}
