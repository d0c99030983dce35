/** Small helpers for the document. */

export const $ = (id) => document.getElementById(id);

/** An element with properties (`class`, `text`, `on…` listeners, attributes) and children. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const FOCUSABLE = "button, input, [tabindex]";

/** Replaces what is in `parent`. The focus stays at its place there, or goes to `otherwise` where nothing is left. */
export function renew(parent, children, otherwise = null) {
  const place = [...parent.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
  parent.replaceChildren(...children);
  if (place < 0) return;
  const left = [...parent.querySelectorAll(FOCUSABLE)];
  (left[Math.min(place, left.length - 1)] ?? otherwise)?.focus({ preventScroll: true });
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export const count = (number) => number.toLocaleString("en-US");
export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}%`;
export const ms = (number) => `${number < 10 ? number.toFixed(1) : Math.round(number)} ms`;

/** Calls `act` once, `wait` milliseconds after the last call. */
export function later(act, wait) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...values), wait);
  };
}

let hiding;
/** A short message at the bottom of the page. */
export function toast(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => {
    $("toast").hidden = true;
  }, 2500);
}

export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
