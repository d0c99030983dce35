/** What is asked now. Parts of the page change it and call `changed`; `main.js` listens. */

export const state = {
  about: null,
  history: [], // {item, name, id}, oldest first
  userId: null,
  person: null, // a test user: {user, next: Set, profile}
  entry: null,
  dials: {}, // name -> number, of those that differ from the tuned search
  filter: "",
  filterName: "", // of a filter that the bundle or the server's operator has named
  excludeHistory: false,
  excluded: [], // {item, name}, which may not be shown
};

const listeners = new Set();
export const onChange = (listener) => listeners.add(listener);
export const changed = (what) => listeners.forEach((listener) => listener(what));

/** The recommended search of the chosen entry. */
export function tuned() {
  const { search, entry } = state.about;
  const chosen = state.entry ?? entry;
  return search[chosen] ?? { top_k: Math.min(search[entry].top_k, state.about.items), ef: [0], rounds: [0] };
}

/** How many items are asked for. */
export const topK = () => state.dials.top_k ?? tuned().top_k;

/** Whether there are items that may not be shown. */
export const isFiltered = () => Object.keys(conditions()).length > 0 || state.excluded.length > 0;

/** Whether somebody or something is asked about. */
export const isAsked = () => state.history.length > 0 || state.userId !== null;

const conditions = () => ({
  ...(state.filter.trim() ? { filter: state.filter.trim() } : {}),
  ...(state.filterName ? { filter_name: state.filterName } : {}),
  ...(state.excludeHistory ? { exclude_history: true } : {}),
});

const who = () => ({
  items: state.history.map((each) => each.item),
  ...(state.userId === null ? {} : { user_id: state.userId }),
  ...(state.excluded.length ? { excluded: state.excluded.map((each) => each.item) } : {}),
  ...(state.person?.profile ? { profile: state.person.profile } : {}),
});

/** The question with the search as the dials say. Only what differs from the tuned search is named. */
export function question() {
  const base = tuned();
  const asked = {};
  if (state.entry !== null && state.entry !== state.about.entry) asked.entry = state.entry;
  for (const [name, value] of Object.entries(state.dials)) {
    asked[name] = Array.isArray(base[name]) ? [...base[name].slice(0, -1), value].join(",") : value;
  }
  return { ...who(), parameters: { ...asked, ...conditions() } };
}

/** The same question, for as many items, with the tuned search; null if that is what is asked anyway. */
export function tunedQuestion() {
  const differs = Object.keys(state.dials).some((name) => name !== "top_k");
  if (!differs && (state.entry === null || state.entry === state.about.entry)) return null;
  return { ...who(), parameters: { top_k: topK(), ...conditions() } };
}
