/** The search's dials, each beside its tuned value. */

import { $, el } from "./dom.js";
import { changed, state, topK, tuned } from "./state.js";

const WORDS = {
  top_k: "Items to return",
  seeds: "Seeds: entry points",
  seed_ef: "Width of the light walk",
  ef: "ef: best items kept",
  rounds: "Rounds",
};
const ENTRIES = { seeds: "Seeds", layers: "Layers", all: "All items" };
const STEPS = 1000;

/** The tuned value, the least and the most of a dial. */
function range(name) {
  const { bounds } = state.about;
  const base = tuned();
  const last = (values) => values[values.length - 1];
  switch (name) {
    case "top_k":
      return [base.top_k, 1, bounds.max_top_k];
    case "ef":
      return [Math.max(last(base.ef), topK()), topK(), bounds.max_ef];
    case "rounds":
      return [last(base.rounds), 0, Math.min(10, bounds.max_rounds)];
    case "seeds":
      return [base.seeds.count, 1, bounds.max_ef];
    default:
      return [Math.max(base.seeds.ef, state.dials.seeds ?? 0), state.dials.seeds ?? base.seeds.count, bounds.max_ef];
  }
}

const names = () => {
  const entry = state.entry ?? state.about.entry;
  if (entry === "all") return ["top_k"];
  return entry === "seeds" ? ["top_k", "seeds", "seed_ef", "ef", "rounds"] : ["top_k", "ef", "rounds"];
};

// Small numbers need fine steps, large ones do not: all dials but the rounds are logarithmic.
const toPlace = (value, low, high) => (STEPS * Math.log(value / low)) / Math.log(high / low);
const toValue = (place, low, high) => Math.round(low * (high / low) ** (place / STEPS));

function set(name, value) {
  const [base, low, high] = range(name);
  const fit = Math.min(Math.max(Math.round(value), low), high);
  if (fit === base) delete state.dials[name];
  else state.dials[name] = fit;
  for (const other of ["ef", "seed_ef"]) {
    if (other in state.dials) state.dials[other] = Math.max(state.dials[other], range(other)[1]);
  }
  refresh();
  changed("search");
}

function dial(name) {
  const linear = name === "rounds";
  const slider = el("input", {
    type: "range",
    id: `dial-${name}`,
    min: 0,
    max: linear ? range(name)[2] : STEPS,
    step: 1,
  });
  const number = el("input", { type: "number", id: `number-${name}`, "aria-label": `${WORDS[name]}, as a number` });
  const reset = el("button", { type: "button", class: "tuned", onclick: () => set(name, range(name)[0]) });
  slider.addEventListener("input", () => {
    const [base, low, high] = range(name);
    const [place, now] = [Number(slider.value), state.dials[name] ?? base];
    let value = linear ? place : toValue(place, low, high);
    // A key's step is less than one where numbers are small.
    if (value === now && !slider.matches(":active")) value += Math.sign(place - toPlace(now, low, high));
    set(name, value);
  });
  number.addEventListener("change", () => set(name, number.value === "" ? range(name)[0] : Number(number.value)));
  const show = () => {
    const [base, low, high] = range(name);
    const value = state.dials[name] ?? base;
    number.min = low;
    number.max = high;
    number.value = value;
    if (document.activeElement !== slider || !slider.matches(":active"))
      slider.value = linear ? value : toPlace(value, low, high);
    slider.setAttribute("aria-valuetext", `${value}, tuned ${base}`);
    reset.textContent = `tuned ${base}`;
    reset.disabled = value === base;
  };
  const body = el("div", { class: "dial" }, el("label", { for: slider.id, text: WORDS[name] }), reset, slider, number);
  return { body, show };
}

let shown = [];
const refresh = () => shown.forEach((each) => each.show());

function render() {
  const entries = Object.keys(state.about.search);
  if (state.about.items <= state.about.bounds.max_ef) entries.push("all");
  const now = state.entry ?? state.about.entry;
  const choice = el(
    "fieldset",
    { class: "choice" },
    el("legend", { class: "hidden", text: "Where the search enters the graph" }),
    ...Object.keys(ENTRIES)
      .filter((entry) => entries.includes(entry))
      .map((entry) =>
        el(
          "label",
          {},
          el("input", {
            type: "radio",
            name: "entry",
            value: entry,
            checked: entry === now,
            onchange: () => choose(entry),
          }),
          el("span", { text: ENTRIES[entry] }),
        ),
      ),
  );
  shown = names().map(dial);
  $("dials").replaceChildren(choice, ...shown.map((each) => each.body));
  refresh();
}

function choose(entry) {
  state.entry = entry === state.about.entry ? null : entry;
  state.dials = state.dials.top_k ? { top_k: state.dials.top_k } : {};
  render();
  $("dials").querySelector("input:checked").focus();
  changed("search");
}

export const startDials = render;
