/** The walk, played round by round. */

import { get } from "./api.js";
import { $, color, count, el, later } from "./dom.js";
import { MARKS, Picture, mark } from "./picture.js";

const STEP_MS = 1400;
const GROW_MS = 600;
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

let picture;
let walk = null;
let places = new Map(); // item -> {x, y, name}
let at = 0;
let playing = null;
let grown = 1;
let focused = null;
let reading = -1;
let onPoint = () => {};

export const whenPointed = (listener) => {
  onPoint = listener;
};
export const redrawWalk = () => {
  picture.draw();
  legend();
};

/** Shows a walk, its last round first: the answer. */
export function showWalk(body) {
  walk = body;
  places = new Map(
    body.items.map((item, row) => [item, { x: body.places[row][0], y: body.places[row][1], name: body.names[row] }]),
  );
  table();
  if (!walk.rounds.length) return nothing("No walk: no item may be shown");
  return go(walk.rounds.length - 1, { grow: false });
}

function nothing(words) {
  stop();
  $("caption").textContent = words;
  controls();
  picture.setLayer(0);
}

export function hideWalk() {
  walk = null;
  focused = null;
  $("rounds").replaceChildren();
  nothing("");
}

/** Points at an item of the walk; null: at none. */
export function pointAt(item) {
  focused = item !== null && places.has(item) ? item : null;
  picture.redraw();
}

const layerName = (layer) => (layer === 0 ? "ground layer" : `layer ${layer}`);
const isStart = (round) => round.frontier.length === 0;

function fresh(round) {
  const scored = new Set(round.scored);
  return round.best.filter((item) => scored.has(item));
}

function caption(round) {
  const kept = count(round.best.length);
  if (!walk.walked) {
    const scored = round.scored.length;
    const which = scored === walk.matching ? "all" : `the best ${count(scored)} by the light score, of`;
    return `No walk: ${which} ${count(walk.matching)} items that may be shown were scored, and the best ${kept} kept`;
  }
  const where = layerName(round.layer);
  const what = isStart(round)
    ? `${count(round.scored.length)} entry points scored`
    : `${count(round.frontier.length)} looked around, ${count(round.scored.length)} new scored`;
  const step = isStart(round) ? "Start" : `Round ${round.round}`;
  return `${step}, ${where}: ${what}, ${count(fresh(round).length)} of them among the best ${kept}`;
}

function go(to, { grow = true } = {}) {
  if (!walk || !walk.rounds.length) return;
  at = Math.min(Math.max(to, 0), walk.rounds.length - 1);
  reading = -1;
  const round = walk.rounds[at];
  $("caption").textContent = caption(round);
  controls();
  grown = grow && !calm.matches ? 0 : 1;
  picture.setLayer(round.layer);
  if (grown < 1) requestAnimationFrame(growing(performance.now(), at));
}

const growing = (start, step) => (now) => {
  if (step !== at) return;
  grown = Math.min(1, (now - start) / GROW_MS);
  picture.redraw();
  if (grown < 1) requestAnimationFrame(growing(start, step));
};

function stop() {
  clearInterval(playing);
  playing = null;
}

function play() {
  if (playing) {
    stop();
    return controls();
  }
  go(at === walk.rounds.length - 1 ? 0 : at + 1);
  playing = setInterval(() => {
    if (at === walk.rounds.length - 1) {
      stop();
      return controls();
    }
    return go(at + 1);
  }, STEP_MS);
  return controls();
}

function step(by) {
  stop();
  go(at + by);
}

let player;
function controls() {
  const last = walk ? walk.rounds.length - 1 : 0;
  player ??= {
    back: el("button", {
      type: "button",
      id: "back",
      "aria-label": "Round before",
      text: "‹",
      onclick: () => step(-1),
    }),
    play: el("button", { type: "button", id: "play", class: "main", onclick: play }),
    on: el("button", { type: "button", id: "forward", "aria-label": "Next round", text: "›", onclick: () => step(1) }),
    slider: el("input", {
      type: "range",
      id: "round",
      "aria-label": "Round",
      min: 0,
      step: 1,
      oninput: () => step(Number(player.slider.value) - at),
    }),
    count: el("output", {}),
  };
  const { back, play: button, on, slider, count: shown } = player;
  if (!$("player").children.length) $("player").append(back, button, on, slider, shown);
  button.textContent = playing ? "Pause" : "Play";
  for (const each of [back, button, on, slider]) each.disabled = !walk || !walk.rounds.length;
  slider.max = last;
  slider.value = walk ? at : 0;
  slider.setAttribute("aria-valuetext", walk?.rounds.length ? caption(walk.rounds[at]) : "");
  shown.textContent = walk?.rounds.length ? `${at + 1} / ${last + 1}` : "";
}

function draw(context) {
  if (!walk || !walk.rounds.length) return;
  const round = walk.rounds[at];
  const put = (kind, items, size) => items.forEach((item) => mark(context, kind, ...spot(item), size));
  context.globalAlpha = 0.7;
  for (const earlier of walk.rounds.slice(0, at)) put("visited", earlier.scored);
  context.globalAlpha = 0.75;
  put("own", walk.own, 0.75);
  context.globalAlpha = 1;
  edges(context, round);
  const isSeeded = walk.walked && round.layer === 0 && walk.entry === "seeds";
  if (isStart(round)) put(isSeeded ? "seed" : "scored", round.scored, 0.8);
  else {
    context.globalAlpha = grown;
    put("scored", round.scored);
    context.globalAlpha = 1;
    put("frontier", round.frontier);
  }
  context.globalAlpha = grown;
  put("best", round.best, 0.85);
  context.globalAlpha = 1;
  if (focused !== null) ring(context, focused);
}

const spot = (item) => picture.place(places.get(item).x, places.get(item).y);

/** From the frontier to what it brought among the best. */
function edges(context, round) {
  const kept = new Set(fresh(round));
  context.strokeStyle = color("mark-best");
  context.lineWidth = 0.8;
  context.globalAlpha = 0.4;
  context.beginPath();
  round.scored.forEach((item, row) => {
    const parent = round.parents[row];
    if (parent < 0 || !kept.has(item)) return;
    const [x, y] = spot(parent);
    const [toX, toY] = spot(item);
    context.moveTo(x, y);
    context.lineTo(x + grown * (toX - x), y + grown * (toY - y));
  });
  context.stroke();
  context.globalAlpha = 1;
}

function ring(context, item) {
  const [x, y] = spot(item);
  context.strokeStyle = color("ink");
  context.lineWidth = 2;
  context.beginPath();
  context.arc(x, y, 9, 0, 2 * Math.PI);
  context.stroke();
}

function role(item) {
  const round = walk.rounds[at];
  const place = round ? round.best.indexOf(item) : -1; // there is no round where no item may be shown
  if (place >= 0) return `number ${place + 1} of the best so far`;
  if (walk.own.includes(item)) return "the user's own";
  if (round?.frontier.includes(item)) return "frontier";
  if (round?.scored.includes(item)) return "scored in this round";
  return walk.rounds.slice(0, at).some((each) => each.scored.includes(item)) ? "scored before" : "not yet scored";
}

function tip(name, what, x, y) {
  const shown = $("tip");
  shown.replaceChildren(name, el("small", { text: what }));
  shown.hidden = false;
  const width = $("picture").clientWidth;
  shown.style.left = `${Math.max(4, Math.min(x + 12, width - shown.offsetWidth - 4))}px`;
  shown.style.top = `${Math.max(4, y - shown.offsetHeight - 10)}px`;
}

function hideTip() {
  $("tip").hidden = true;
  onPoint(null);
}

const nameBehind = later(async (x, y) => {
  const item = picture.nearest(x, y);
  if (item === null || !$("picture").matches(":hover")) return;
  const found = await get(`items?items=${item}`).catch(() => []);
  if (found.length && $("tip").hidden)
    tip(found[0].name, Object.values(found[0].attributes).slice(0, 2).join(" · "), x, y);
}, 120);

function hover(event) {
  if (event.buttons) return;
  const edge = $("picture").getBoundingClientRect();
  const [x, y] = [event.clientX - edge.left, event.clientY - edge.top];
  let [best, distance] = [null, 100];
  for (const item of places.keys()) {
    const [itemX, itemY] = spot(item);
    const own = (itemX - x) ** 2 + (itemY - y) ** 2;
    if (own < distance) [best, distance] = [item, own];
  }
  pointAt(best);
  if (best === null || !walk) {
    hideTip();
    return nameBehind(x, y);
  }
  tip(places.get(best).name, role(best), ...spot(best));
  return onPoint(best);
}

/** Reads the best items so far, one by one. */
function read(by) {
  const { best } = walk.rounds[at];
  if (!best.length) return;
  reading = Math.min(Math.max(reading + by, 0), best.length - 1);
  const item = best[reading];
  pointAt(item);
  tip(places.get(item).name, role(item), ...spot(item));
  onPoint(item);
}

const KEYS = {
  " ": play,
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  ArrowDown: () => read(1),
  ArrowUp: () => read(-1),
  "+": () => picture.zoomBy(1.4),
  "-": () => picture.zoomBy(1 / 1.4),
  0: () => picture.zoomBy(0),
};

function table() {
  const heads = ["Step", "Layer", "Frontier", "Scored", "New among the best", "Best so far", "The best"];
  const rows = walk.rounds.map((round, row) => {
    const cells = [
      row + 1,
      layerName(round.layer),
      count(round.frontier.length),
      count(round.scored.length),
      count(fresh(round).length),
      count(round.best.length),
      round.best.length ? places.get(round.best[0]).name : "",
    ];
    return el("tr", {}, ...cells.map((text) => el("td", { text })));
  });
  $("rounds").replaceChildren(
    el(
      "table",
      { "aria-label": "The rounds of the walk" },
      el("thead", {}, el("tr", {}, ...heads.map((text) => el("th", { scope: "col", text })))),
      el("tbody", {}, ...rows),
    ),
  );
}

function legend() {
  $("legend").replaceChildren(
    ...Object.entries(MARKS).map(([kind, [, words]]) => {
      const canvas = el("canvas", { width: 28, height: 28, "aria-hidden": "true" });
      const context = canvas.getContext("2d");
      context.scale(2, 2);
      mark(context, kind, 7, 7, kind === "visited" ? 1.4 : 1);
      return el("li", {}, canvas, words);
    }),
  );
}

export async function startWalk() {
  picture = new Picture();
  picture.onDraw = draw;
  legend();
  controls();
  const box = $("picture");
  box.addEventListener("pointermove", hover);
  box.addEventListener("pointerleave", () => {
    pointAt(null);
    hideTip();
  });
  box.addEventListener("blur", hideTip);
  box.addEventListener("keydown", (event) => {
    const ofBrowser = event.ctrlKey || event.metaKey || event.altKey; // its zoom, or back to the page before
    if (ofBrowser || !walk?.rounds.length || !(event.key in KEYS)) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  await picture.load();
}
