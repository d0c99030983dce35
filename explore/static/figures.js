/** Cost and quality of the answer, beside those of the tuned search. */

import { $, color, count, el, ms, percent, svg } from "./dom.js";
import { state } from "./state.js";

const STAGES = {
  light_walk: ["light walk", "mark-seed"],
  expand: ["neighbours", "mark-visited"],
  mark: ["marking", "mark-item"],
  score: ["scorer", "accent"],
  select: ["select", "mark-best"],
};

let now = {};
const render = () => $("figures").replaceChildren(...parts());

/** Takes over what is known of the answer: `answer`, `compared`, `stages`, and of the tuned search `tuned`. */
export function showFigures(known) {
  now = known.answer ? { ...known } : { ...now, ...known };
  render();
}

export function hideFigures() {
  now = {};
  $("figures").replaceChildren();
}

function figure(title, value, unit, tuned, about) {
  return el(
    "div",
    { class: "figure", title: about },
    el("p", { text: title }),
    el("p", { class: "value" }, value, unit ? el("small", { text: ` ${unit}` }) : ""),
    el("p", { text: tuned }),
  );
}

function parts() {
  if (!now.answer) return [];
  const { answer, compared, tuned } = now;
  const k = answer.items.length;
  const coverage = compared?.exhaustive.answer_coverage;
  const cascade = compared?.cascade?.coverage;
  const beside = (text) => (tuned === undefined ? "as tuned" : tuned === null ? "tuned: …" : `tuned: ${text(tuned)}`);
  const made = [
    figure(
      "Items scored",
      count(answer.evaluations),
      percent(answer.evaluations / state.about.items),
      beside((other) => count(other.answer.evaluations)),
      "How many items the deep model scored, and their share of all",
    ),
    figure(
      "Latency",
      ms(answer.latency_ms).replace(" ms", ""),
      "ms",
      beside((other) => ms(other.answer.latency_ms)),
      "From this page's server to the answer and back",
    ),
    figure(
      `Coverage@${k}`,
      coverage === undefined || coverage === null ? "…" : percent(coverage),
      "",
      beside((other) => (other.coverage == null ? "…" : percent(other.coverage))),
      "The share of the exhaustive list's first items that the answer has",
    ),
    figure(
      "Cascade's coverage",
      cascade === undefined ? (compared ? "none" : "…") : percent(cascade),
      "",
      compared && !compared.cascade ? "no light score" : `with ${count(answer.evaluations)} scored`,
      "The same of two-sided vectors and re-ranking, with as many evaluations",
    ),
  ];
  if (now.person && k) made.push(hits());
  if (now.stages) made.push(stages());
  return made;
}

/** How many of the test user's next items each list has. */
function hits() {
  const { next } = state.person ?? { next: new Set() };
  const of = (items) => items.filter((each) => next.has(each.item)).length;
  const lists = [`${of(now.answer.items)} served`];
  if (now.compared) {
    lists.push(`${of(now.compared.exhaustive.items)} exhaustive`);
    if (now.compared.cascade) lists.push(`${of(now.compared.cascade.items)} cascade`);
  }
  return el("p", { class: "stages", text: `Of the ${next.size} items taken next: ${lists.join(", ")}.` });
}

function stages() {
  const { total, ...known } = now.stages;
  const rest = Math.max(0, total - Object.values(known).reduce((sum, each) => sum + each, 0));
  const shares = [
    ...Object.entries(STAGES).map(([name, [words, tone]]) => [words, known[name] ?? 0, tone]),
    ["rest", rest, "line"],
  ];
  const whole = svg("svg", {
    viewBox: "0 0 100 6",
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": shares.map(([words, spent]) => `${words} ${ms(spent)}`).join(", "),
  });
  let from = 0;
  for (const [, spent, tone] of shares) {
    const width = (100 * spent) / total;
    whole.append(svg("rect", { x: from, y: 0, width, height: 6, fill: color(tone) }));
    from += width;
  }
  const words = shares
    .filter(([, spent]) => spent > 0.02 * total)
    .map(([name, spent, tone]) => {
      const swatch = el("i", { class: "swatch" });
      swatch.style.background = color(tone);
      return el("span", {}, swatch, `${name} ${ms(spent)}`);
    });
  return el(
    "div",
    { class: "stages", title: "Measured while the search was repeated in this page's server" },
    whole,
    el("span", { text: "Repeated here:" }),
    ...words,
  );
}
