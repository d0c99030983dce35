/** Whose history: search as you type, chips, a test user, a user id. */

import { get } from "./api.js";
import { $, el, later, renew, toast } from "./dom.js";
import { changed, state } from "./state.js";

const SHOWN_CHIPS = 5;
let found = [];
let active = -1;
let everyChip = false;
let searches = 0;

const describe = (each) =>
  Object.entries(each.attributes)
    .slice(0, 3)
    .map(([, value]) => value)
    .join(" · ");

function show(items, text) {
  found = items;
  active = items.length ? 0 : -1;
  const list = $("found");
  list.replaceChildren(
    ...items.map((each, place) =>
      el(
        "li",
        {
          id: `found-${place}`,
          role: "option",
          "aria-selected": place === active,
          onmousedown: (event) => {
            event.preventDefault();
            pick(each);
          },
        },
        each.name,
        el("small", { text: describe(each) || each.id }),
      ),
    ),
  );
  if (!items.length)
    list.append(
      el("li", {
        class: "none",
        role: "option",
        "aria-disabled": "true",
        "aria-selected": "false",
        text: `No product with “${text}”, by name or by id`,
      }),
    );
  open(true);
}

function open(yes) {
  $("found").hidden = !yes;
  $("search").setAttribute("aria-expanded", yes);
  if (yes && active >= 0) $("search").setAttribute("aria-activedescendant", `found-${active}`);
  else $("search").removeAttribute("aria-activedescendant");
}

function move(step) {
  if (!found.length) return;
  active = (active + step + found.length) % found.length;
  [...$("found").children].forEach((each, place) => each.setAttribute("aria-selected", place === active));
  $("found").children[active].scrollIntoView({ block: "nearest" });
  open(true);
}

const search = later(async () => {
  const text = $("search").value.trim();
  if (!text) return open(false);
  const own = ++searches;
  const items = await get(`names?q=${encodeURIComponent(text)}`).catch(() => null);
  if (items !== null && own === searches && $("search").value.trim() === text) show(items, text);
}, 60);

function pick(each) {
  searches += 1;
  $("search").value = "";
  open(false);
  add(each);
}

/** Adds an item to the end of the history. */
export function add(each) {
  state.history = [...state.history, each];
  render();
  changed("who");
}

function become({ history = [], userId = null, person = null }) {
  Object.assign(state, { history, userId, person });
  everyChip = false;
  render();
  changed("who");
}

async function random() {
  $("random").disabled = true;
  try {
    const user = await get("random-user");
    become({ history: user.described, person: { user: user.user, next: new Set(user.next), profile: user.profile } });
  } catch (error) {
    toast(error.message);
  } finally {
    $("random").disabled = false;
  }
}

function chip(each, place) {
  const remove = () => {
    state.history = state.history.filter((_, other) => other !== place);
    render();
    changed("who");
  };
  return el(
    "li",
    { class: "chip" },
    el("b", { text: place + 1 }),
    el("span", { text: each.name, title: each.name }),
    el("button", { type: "button", "aria-label": `Remove ${each.name}`, onclick: remove, text: "×" }),
  );
}

const short = (text) => (text.length > 60 ? `${text.slice(0, 57)}…` : text);

function heading() {
  if (state.userId !== null)
    return `User ${short(state.userId)}: the history in the store${state.history.length ? ", and then" : ""}`;
  if (state.person)
    return `Test user ${state.person.user}: ${state.history.length} earlier, ${state.person.next.size} taken next`;
  return state.history.length ? `${state.history.length} in the history, oldest first` : "";
}

function render() {
  const { history, userId } = state;
  const hidden = everyChip ? 0 : Math.max(0, history.length - SHOWN_CHIPS);
  const shown = history.map((each, place) => [each, place]).slice(hidden);
  const parts = [];
  if (history.length || userId !== null) {
    parts.push(
      el(
        "div",
        { class: "line" },
        el("p", { class: "quiet", text: heading() }),
        el("button", {
          class: "plain",
          type: "button",
          text: "Clear",
          onclick: () => {
            $("user-id").value = "";
            become({});
          },
        }),
      ),
    );
  }
  if (hidden)
    parts.push(
      el("button", {
        class: "plain",
        type: "button",
        text: `Show the ${hidden} before these`,
        onclick: () => {
          everyChip = true;
          render();
        },
      }),
    );
  if (shown.length)
    parts.push(el("ol", { "aria-label": "History, oldest first" }, ...shown.map(([each, place]) => chip(each, place))));
  renew($("history"), parts, $("search"));
}

export function startPeople() {
  $("random").hidden = !state.about.test_users;
  $("random").addEventListener("click", random);
  $("search").addEventListener("input", search);
  $("search").addEventListener("blur", () => open(false));
  $("search").addEventListener("keydown", (event) => {
    if (event.isComposing) return; // the keys are those of an input method, as for Japanese
    if (event.key === "ArrowDown") move(1);
    else if (event.key === "ArrowUp") move(-1);
    else if (event.key === "Escape") open(false);
    else if (event.key === "Enter" && !$("found").hidden && active >= 0) pick(found[active]);
    else return;
    event.preventDefault();
  });
  $("by-id").addEventListener("submit", (event) => {
    event.preventDefault();
    const userId = $("user-id").value.trim();
    if (userId) become({ userId });
  });
}
