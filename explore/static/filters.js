/** Which items may be shown: conditions that the builder writes as the filter's text, and the text itself. */

import { get } from "./api.js";
import { $, el, later, renew } from "./dom.js";
import { changed, onChange, state } from "./state.js";

const OPERATORS = {
  category: ["=", "!="],
  categories: ["=", "!="],
  integer: ["<", "<=", ">", ">=", "=", "!="],
  number: ["<", "<=", ">", ">=", "=", "!="],
  flag: ["=", "!="],
};
const RESERVED = new Set(["and", "or", "not", "in", "between", "true", "false"]);

const quoted = (text) => `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
const attributeName = (name) =>
  /^[A-Za-z_]\w*$/.test(name) && !RESERVED.has(name.toLowerCase()) ? name : quoted(name);

function condition(attribute, operator, value) {
  const plain = attribute.type === "flag" || attribute.type === "integer" || attribute.type === "number";
  return `${attributeName(attribute.name)} ${operator} ${plain ? value : quoted(value)}`;
}

/** The old text and the new condition; an "or" in the old one keeps its meaning. */
function both(text, added) {
  if (!text.trim()) return added;
  return `${/\bor\b/i.test(text) ? `(${text.trim()})` : text.trim()} and ${added}`;
}

function valueInput(attribute) {
  if (attribute.type === "flag") {
    return el(
      "select",
      { id: "value", "aria-label": "Value" },
      el("option", { text: "true" }),
      el("option", { text: "false" }),
    );
  }
  const numbers = attribute.type === "integer" || attribute.type === "number";
  const input = el("input", {
    id: "value",
    type: numbers ? "number" : "text",
    "aria-label": "Value",
    autocomplete: "off",
    step: "any",
    list: numbers ? null : "values",
    placeholder: numbers ? `${attribute.low ?? ""} to ${attribute.high ?? ""}` : `one of ${attribute.distinct}`,
  });
  if (numbers) return el("div", { class: "value" }, input);
  return el(
    "div",
    { class: "value" },
    input,
    el("datalist", { id: "values" }, ...attribute.values.map((value) => el("option", { value }))),
  );
}

function builder(attributes, write) {
  const operator = el("select", { id: "operator", "aria-label": "Comparison" });
  const place = el("div", { class: "value" });
  const chosen = () => attributes[attribute.selectedIndex];
  const attribute = el(
    "select",
    { id: "attribute", "aria-label": "Attribute" },
    ...attributes.map((each) => el("option", { text: each.name })),
  );
  const adapt = () => {
    operator.replaceChildren(...OPERATORS[chosen().type].map((word) => el("option", { text: word })));
    place.replaceChildren(valueInput(chosen()));
  };
  attribute.addEventListener("change", adapt);
  adapt();
  const add = (event) => {
    event.preventDefault();
    const value = $("value").value.trim();
    if (value) write(condition(chosen(), operator.value, value));
  };
  return el(
    "form",
    { class: "build", onsubmit: add },
    attribute,
    operator,
    place,
    el("button", { type: "submit", text: "Add" }),
  );
}

/** Shows a mistake at the filter, where it was made; null takes it away. */
export function showFilterMistake(message) {
  const inText = Boolean(message?.includes("parameter filter:"));
  const inName = !inText && state.filterName !== "" && Boolean(message?.includes("filter"));
  for (const [id, wrong] of Object.entries({ filter: inText, "filter-name": inName })) {
    $(`${id}-wrong`).hidden = !wrong;
    $(`${id}-wrong`).textContent = wrong ? message : "";
    $(id).setAttribute("aria-invalid", wrong);
  }
}

const mistake = (id) => el("p", { id: `${id}-wrong`, class: "wrong", role: "alert", hidden: true });

/** The filter with a name: one of those that are known here, or another that the server may know. */
function named() {
  let filters = {};
  const about = el("p", { id: "filter-name-about", class: "quiet" });
  const input = el("input", {
    id: "filter-name",
    type: "text",
    list: "filter-names",
    autocomplete: "off",
    spellcheck: "false",
    maxlength: 100,
    "aria-describedby": "filter-name-about filter-name-wrong",
  });
  const describe = (name) => {
    about.textContent = Object.hasOwn(filters, name) ? (filters[name] ?? "a list of items") : "";
  };
  const take = () => {
    const name = input.value.trim();
    describe(name);
    if (name === state.filterName) return;
    state.filterName = name;
    changed("search");
  };
  // While a name is typed it is no name yet, unless it was picked from the list.
  input.addEventListener("input", () => (!input.value || Object.hasOwn(filters, input.value)) && take());
  input.addEventListener("change", take);
  input.addEventListener("keydown", (event) => event.key === "Enter" && take());
  const listed = el("datalist", { id: "filter-names" });
  const show = (found) => {
    filters = found;
    const names = Object.keys(filters);
    input.placeholder = names.length ? `one of ${names.length}, or another` : "a name that the server knows";
    listed.replaceChildren(...names.map((value) => el("option", { value })));
    describe(state.filterName);
  };
  show(state.about.filters);
  // The operator may have set others since. If the page's server has ended, the next question says so.
  input.addEventListener("focus", () => get("filters").then(show, () => {}));
  return el(
    "div",
    { class: "named-filter" },
    el("label", { for: "filter-name", text: "Filter with a name" }),
    input,
    listed,
    about,
    mistake("filter-name"),
  );
}

export function startFilters() {
  const { attributes } = state.about;
  const text = el("textarea", {
    id: "filter",
    "aria-label": "Filter, as text",
    "aria-describedby": "filter-wrong",
    spellcheck: "false",
    placeholder: attributes.length ? 'brand = "Private" and …' : "this bundle has no attributes",
  });
  const set = (value) => {
    if (value.trim() === state.filter.trim()) return;
    state.filter = value;
    changed("search");
  };
  const write = (added) => {
    text.value = both(text.value, added);
    set(text.value);
  };
  text.addEventListener(
    "input",
    later(() => set(text.value), 600),
  );
  text.addEventListener("change", () => set(text.value));
  const parts = [];
  if (attributes.length) parts.push(builder(attributes, write));
  parts.push(text, mistake("filter"), named());
  const exclude = el("input", {
    type: "checkbox",
    id: "exclude",
    onchange: () => {
      state.excludeHistory = exclude.checked;
      changed("search");
    },
  });
  parts.push(el("label", { class: "check" }, exclude, "Nothing of the user's own history"));
  parts.push(el("ul", { id: "excluded", class: "chips", "aria-label": "Items that are left out" }));
  $("filters").replaceChildren(...parts);
  onChange(renderExcluded);
}

function renderExcluded() {
  const chip = ({ item, name }) => {
    const remove = () => {
      state.excluded = state.excluded.filter((each) => each.item !== item);
      changed("search");
    };
    return el(
      "li",
      { class: "chip" },
      el("span", { text: `without ${name}`, title: name }),
      el("button", { type: "button", "aria-label": `Show ${name} again`, onclick: remove, text: "×" }),
    );
  };
  renew($("excluded"), state.excluded.map(chip), $("exclude"));
}
