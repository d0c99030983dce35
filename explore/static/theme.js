/** Light or dark: as the system says, until the button says otherwise. */

import { $ } from "./dom.js";

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const NAMES = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };

const stored = () => {
  try {
    return localStorage.getItem("theme") ?? "auto";
  } catch {
    return "auto"; // storage may be forbidden
  }
};
let chosen = stored() in NAMES ? stored() : "auto";

function apply() {
  document.documentElement.dataset.theme = chosen === "auto" ? (dark.matches ? "dark" : "light") : chosen;
  $("theme").textContent = NAMES[chosen];
}

/** `redraw` draws what has colours of its own. */
export function startTheme(redraw) {
  apply();
  const changedBy = () => {
    apply();
    redraw();
  };
  dark.addEventListener("change", changedBy);
  $("theme").addEventListener("click", () => {
    const names = Object.keys(NAMES);
    chosen = names[(names.indexOf(chosen) + 1) % names.length];
    try {
      localStorage.setItem("theme", chosen);
    } catch {
      // it holds until the page is closed
    }
    changedBy();
  });
}
