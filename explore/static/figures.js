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

/**
 * Takes over what is known of the answer: `answer`, how many items could have come (`wanted`), `compared`, `stages`, of
 * the tuned search `tuned`; `unexplained` if no more will be known.
 */
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

/** A share that is not known yet (undefined), or of no items (null). */
const share = (known) => (known === undefined ? waited() : known === null ? "–" : percent(known));
const waited = () => (now.unexplained ? "–" : "…");

function parts() {
  if (!now.answer) return [];
  const { answer, wanted, compared, tuned } = now;
  const coverage = compared?.exhaustive.answer_coverage;
  const cascade = compared?.cascade?.coverage;
  const beside = (text) =>
    tuned === undefined ? "as tuned" : tuned === null ? `tuned: ${waited()}` : `tuned: ${text(tuned)}`;
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
      `Coverage@${wanted}`,
      share(coverage),
      "",
      beside((other) => share(other.coverage)),
      "The share of the exhaustive list's first items that the answer has",
    ),
    figure(
      "Cascade's coverage",
      cascade === undefined ? (compared ? "none" : waited()) : share(cascade),
      "",
      compared && !compared.cascade ? "no light score" : `with ${count(answer.evaluations)} scored`,
      "The same of two-sided vectors and re-ranking, with as many evaluations",
    ),
  ];
  if (now.person && wanted) made.push(hits());
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

/** Milliseconds by stage, as words and the names of their colours; "rest" is what no stage took. */
function shares({ total, ...known }) {
  const rest = Math.max(0, total - Object.values(known).reduce((sum, each) => sum + each, 0));
  return [
    ...Object.entries(STAGES).map(([name, [words, tone]]) => [words, known[name] ?? 0, tone]),
    ["rest", rest, "line"],
  ];
}

/** A search's time as a bar, drawn so that `longest` milliseconds fill the width. */
function bar(spentIn, longest) {
  const whole = svg("svg", {
    viewBox: "0 0 100 6",
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": shares(spentIn)
      .map(([words, spent]) => `${words} ${ms(spent)}`)
      .join(", "),
  });
  let from = 0;
  for (const [, spent, tone] of shares(spentIn)) {
    const width = (100 * spent) / longest;
    whole.append(svg("rect", { x: from, y: 0, width, height: 6, fill: color(tone) }));
    from += width;
  }
  return whole;
}

/** Where the search's time went, and beside it the tuned search's; both were repeated in the page's own server. */
function stages() {
  const searches = [["Repeated here", now.stages]];
  if (now.tuned !== undefined) searches.push(["Tuned search", now.tuned?.stages]);
  const known = searches.filter(([, each]) => each).map(([, each]) => each);
  const longest = Math.max(...known.map((each) => each.total));
  const bars = searches.flatMap(([title, each]) => [
    el("span", { text: title }),
    each ? bar(each, longest) : el("span"),
    el("span", { class: "total", text: each ? ms(each.total) : waited() }),
  ]);
  const [own, tuned] = known.map(shares);
  const words = own
    .map(([name, spent, tone], row) => [name, spent, tone, tuned?.[row][1]])
    .filter(([, spent, , other]) => spent > 0.02 * known[0].total || other > 0.02 * known[1]?.total)
    .map(([name, spent, tone, other]) => {
      const swatch = el("i", { class: "swatch" });
      swatch.style.background = color(tone);
      return el("span", {}, swatch, `${name} ${ms(spent)}${other === undefined ? "" : `, tuned ${ms(other)}`}`);
    });
  return el(
    "div",
    { class: "spent", title: "The fastest of three repetitions in this page's server" },
    el("div", { class: "bars" }, ...bars),
    el("div", { class: "stages" }, ...words),
  );
}
