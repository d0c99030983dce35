/** The server's health, read every two seconds. */

import { get } from "./api.js";
import { $, count, el, ms, percent, svg } from "./dom.js";

const EVERY_MS = 2000;

function line(points, read, words) {
  const values = points.map(read);
  const known = values.filter((value) => value !== null && value !== undefined);
  const high = Math.max(...known, 1e-9);
  const step = 92 / Math.max(points.length - 1, 1);
  let path = "";
  values.forEach((value, place) => {
    if (value === null || value === undefined) return;
    const joined = place > 0 && values[place - 1] !== null && values[place - 1] !== undefined;
    path += `${joined ? "L" : "M"}${(place * step).toFixed(1)} ${(25 - (24 * value) / high).toFixed(1)}`;
  });
  return svg("svg", { viewBox: "0 0 92 26", role: "img", "aria-label": words }, svg("path", { d: path }));
}

const latest = (points, read) => {
  for (let place = points.length - 1; place >= 0; place -= 1) {
    const value = read(points[place]);
    if (value !== null && value !== undefined) return value;
  }
  return null;
};

function gauge(title, value, chart) {
  return el("div", { class: "gauge" }, el("div", {}, el("strong", { text: value }), title), chart);
}

function shares(totals) {
  const whole = Object.values(totals).reduce((sum, each) => sum + each, 0);
  if (!whole)
    return el("div", { class: "gauge" }, el("div", {}, el("strong", { text: "none yet" }), "requests since the start"));
  const words = Object.entries(totals)
    .filter(([, each]) => each > 0)
    .sort((one, other) => other[1] - one[1])
    .map(([kind, each]) => `${kind} ${percent(each / whole, each === whole ? 0 : 1)}`);
  return el(
    "div",
    { class: "gauge", id: "shares" },
    el("div", {}, el("strong", { text: words.join(", ") }), `of ${count(whole)} requests since the start`),
  );
}

function show({ points, totals }) {
  const rate = latest(points, (point) => point.requests_per_s);
  const p50 = latest(points, (point) => point.p50_ms);
  const p99 = latest(points, (point) => point.p99_ms);
  const covered = latest(points, (point) => point.coverage);
  const stages = latest(points, (point) => (Object.keys(point.stages_ms).length ? point.stages_ms : null));
  const parts = [
    gauge(
      "requests a second",
      rate === null ? "–" : rate.toFixed(rate < 10 ? 1 : 0),
      line(points, (point) => point.requests_per_s, "Requests a second"),
    ),
    gauge(
      "median, in the server",
      p50 === null ? "–" : ms(p50),
      line(points, (point) => point.p50_ms, "Median latency"),
    ),
    gauge(
      "99th percentile",
      p99 === null ? "–" : ms(p99),
      line(points, (point) => point.p99_ms, "99th percentile of latency"),
    ),
    gauge(
      "live coverage",
      covered === null ? "no sample" : percent(covered),
      line(points, (point) => point.coverage, "Live coverage"),
    ),
    shares(totals),
  ];
  if (stages) {
    const words = Object.entries(stages)
      .map(([stage, spent]) => `${stage.replace("_", " ")} ${ms(spent)}`)
      .join(" · ");
    parts.push(el("div", { class: "gauge stage", text: `A batch: ${words}` }));
  }
  $("health").replaceChildren(...parts);
}

async function poll() {
  if (document.visibilityState === "visible") {
    try {
      show(await get("health"));
    } catch (error) {
      $("health").replaceChildren(el("p", { text: error.message }));
    }
  }
  setTimeout(poll, EVERY_MS);
}

export const startHealth = poll;
