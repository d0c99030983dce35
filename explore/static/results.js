/** The answer, the exhaustive list and the cascade, with each item's place in the others. */

import { $, el, renew } from "./dom.js";
import { add } from "./people.js";
import { changed, state } from "./state.js";

const TITLES = { served: "Served", exhaustive: "Exhaustive", cascade: "Cascade" };
const ABOUT = {
  served: "What the server answered.",
  exhaustive: "The best of all items by the deep model, each of them scored.",
  cascade:
    "As today: the best by two vectors' inner product, as many as the walk scored, put in order by the deep model.",
};
const FIRST = 50;

let answer = null;
let compared = null;
let own = new Set();
let list = "served";
let all = false;
let onFocus = () => {};

/** Shows an answer; the places in the other lists follow. */
export function showAnswer(body) {
  answer = body;
  compared = null;
  all = false;
  own = new Set(state.history.map((each) => each.item));
  render();
}

/** The other lists and the answer's places in them; of those that are missing nothing will be known. */
export function showComparison(body) {
  compared = body;
  if (list === "cascade" && !body.cascade) list = "served";
  render();
}

/** Items of a stored history, which are known once the walk is. */
export function showOwn(items) {
  items.forEach((item) => own.add(item));
  render();
}

export function hideAnswer() {
  answer = null;
  compared = null;
}

export const whenFocused = (listener) => {
  onFocus = listener;
};

/** Marks the row of an item that the picture points at. */
export function markRow(item) {
  $("results")
    .querySelectorAll("tr.here")
    .forEach((row) => row.classList.remove("here"));
  $("results").querySelector(`tr[data-item="${item}"]`)?.classList.add("here");
}

const places = (items) => new Map(items.map((each, place) => [each.item, place + 1]));

function rows() {
  const served = places(answer.items);
  const lists = { served: (item) => served.get(item) ?? null };
  if (compared) {
    const ofServed = (name) =>
      new Map(
        answer.items
          .filter((each) => each.item !== null)
          .map((each, place) => [each.item, compared[name].ranks[place]]),
      );
    for (const name of ["exhaustive", "cascade"]) {
      if (!compared[name]) continue;
      const own = places(compared[name].items);
      const other = ofServed(name);
      lists[name] = (item) => own.get(item) ?? other.get(item) ?? null;
    }
  }
  const items = list === "served" ? answer.items : compared[list].items;
  const columns = ["served", "exhaustive", "cascade"].filter((name) => name !== list);
  return { items, columns, lists };
}

function marks(item) {
  const found = [];
  if (state.person?.next.has(item)) found.push(el("span", { class: "pill next", text: "✓ taken next" }));
  if (own.has(item)) found.push(el("span", { class: "pill before", text: "↺ before" }));
  return found;
}

function place(name, lists, item) {
  if (!lists[name]) return el("td", {}, el("span", { class: "none", text: compared ? "–" : "…" }));
  const rank = lists[name](item);
  if (rank !== null) return el("td", { text: rank.toLocaleString("en-US") });
  const missed = name === "served";
  return el(
    "td",
    {},
    el("span", { class: missed ? "pill missed" : "none", text: missed ? "missed" : "–", title: "not in this list" }),
  );
}

function row(each, number, { columns, lists }) {
  const stop = number === 1 ? 0 : -1;
  const attributes = Object.values(each.attributes).slice(0, 4).join(" · ");
  const name = el("button", {
    type: "button",
    class: "item",
    tabindex: stop,
    text: each.name,
    title: "Add to the history",
    onclick: () => each.item !== null && add(each),
  });
  const hide =
    each.item === null
      ? null
      : el("button", {
          type: "button",
          class: "hide",
          tabindex: stop,
          "aria-label": `Leave out ${each.name}`,
          title: "Leave out",
          text: "⊘",
          onclick: () => {
            state.excluded = [...state.excluded, { item: each.item, name: each.name }];
            changed("search");
          },
        });
  const made = el(
    "tr",
    {
      "data-item": each.item,
      onmouseenter: () => onFocus(each.item),
      onfocusin: () => onFocus(each.item),
      onmouseleave: () => onFocus(null),
    },
    el("td", { text: number }),
    el(
      "td",
      {},
      el("div", { class: "named" }, name, ...marks(each.item), hide),
      el("span", { class: "details", text: attributes || each.id }),
    ),
    el("td", { text: each.score.toFixed(2) }),
    ...columns.map((column) => place(column, lists, each.item)),
  );
  return made;
}

function chooser() {
  const names = Object.keys(TITLES);
  return el(
    "fieldset",
    { class: "choice" },
    el("legend", { class: "hidden", text: "Which list" }),
    ...names.map((name) =>
      el(
        "label",
        {},
        el("input", {
          type: "radio",
          name: "list",
          value: name,
          checked: name === list,
          disabled: name !== "served" && !compared?.[name],
          onchange: () => {
            list = name;
            all = false;
            render();
          },
        }),
        el("span", { text: TITLES[name] }),
      ),
    ),
  );
}

function empty() {
  return el(
    "div",
    { class: "empty" },
    el("strong", { text: "No item may be shown" }),
    el("p", { text: "Nothing fits what may be shown. Loosen the filter." }),
  );
}

/** One stop of the tab key for the whole list: up and down go from row to row. */
function step(event) {
  const row = event.target.closest("tbody tr");
  const next = { ArrowDown: row?.nextElementSibling, ArrowUp: row?.previousElementSibling }[event.key];
  if (!next) return;
  event.preventDefault();
  const [from, to] = [row, next].map((each) => [...each.querySelectorAll("button")]);
  from.forEach((button) => (button.tabIndex = -1));
  to.forEach((button) => (button.tabIndex = 0));
  to[Math.min(from.indexOf(event.target), to.length - 1)].focus();
}

function render() {
  if (!answer) return;
  if (list !== "served" && !compared?.[list]) list = "served";
  const table = rows();
  const shown = all ? table.items : table.items.slice(0, FIRST);
  const heads = ["#", "Product", "Score", ...table.columns.map((name) => TITLES[name])];
  const head = el(
    "tr",
    {},
    ...heads.map((text) => el("th", { scope: "col", text, title: ABOUT[text.toLowerCase()] ?? null })),
  );
  const body = el(
    "table",
    { "aria-label": `${TITLES[list]} list` },
    el("thead", {}, head),
    el("tbody", {}, ...shown.map((each, at) => row(each, at + 1, table))),
  );
  const more = table.items.length - shown.length;
  const scroll = el(
    "div",
    {
      class: "scroll",
      tabindex: 0,
      role: "region",
      "aria-label": "List; up and down go from row to row",
      onkeydown: step,
    },
    body,
    more > 0
      ? el("button", {
          type: "button",
          class: "plain more",
          text: `Show ${more} more`,
          onclick: () => {
            all = true;
            render();
          },
        })
      : null,
  );
  const kept = $("results").querySelector(".scroll")?.scrollTop ?? 0;
  renew($("results"), [
    chooser(),
    el("p", { class: "quiet", text: ABOUT[list] }),
    table.items.length ? scroll : empty(),
  ]);
  scroll.scrollTop = kept;
}
