/** Asks when something changes: the answer first, and once it is painted what explains it. */

import { get, post } from "./api.js";
import { $, count, el, later, toast } from "./dom.js";
import { showFilterMistake, startFilters } from "./filters.js";
import { startDials } from "./dials.js";
import { hideFigures, showFigures } from "./figures.js";
import { startHealth } from "./health.js";
import { startPeople } from "./people.js";
import { hideAnswer, markRow, showAnswer, showComparison, showOwn, whenFocused } from "./results.js";
import { isAsked, isFiltered, onChange, question, state, topK, tunedQuestion } from "./state.js";
import { startTheme } from "./theme.js";
import { hideWalk, pointAt, redrawWalk, showWalk, startWalk, whenPointed } from "./walk.js";

const STATUS_MS = 2000;
const AGAIN_MS = 2000;
const COMPARE_AFTER_MS = 150;
const WAITS = {
  away: "The server does not answer.",
  overloaded: "The server is overloaded and refused the request.",
  late: "The server did not answer in time.",
};

let asking = null;
let again;

const painted = () =>
  new Promise((resolve) => {
    requestAnimationFrame(() => requestAnimationFrame(resolve));
  });

function notice(text, kind = "", action = null) {
  $("notice").hidden = text === null;
  $("notice").dataset.kind = kind;
  $("notice").replaceChildren(text ?? "", ...(action ? [action] : []));
}

function nothingAsked() {
  hideAnswer();
  hideFigures();
  hideWalk();
  notice(null);
  $("results").replaceChildren(
    el(
      "div",
      { class: "empty" },
      el("strong", { text: "Whose next products?" }),
      el("p", { text: `Add a product on the left${state.about.test_users ? ", or take a random test user" : ""}.` }),
    ),
  );
  for (const id of ["copy-curl", "copy-python"]) $(id).disabled = true;
}

/** How many items could have come. */
const wanted = (answer) => Math.min(topK(), answer.matching);

/** What the answer itself says that a reader must know. */
function remarks(answer) {
  const said = [];
  if (answer.status === "degraded") said.push("Degraded: the scorer failed, so that a cheap ranking answered.");
  if (answer.status === "partial") said.push("Partial: the deadline came before the last round.");
  if (answer.status === "no_history") said.push("The stored history could not be read: the answer is without it.");
  if (state.userId !== null && answer.stored === 0)
    said.push(`The store knows no behaviours of user “${state.userId}”: these are the answers for a new user.`);
  if (answer.unknown) said.push(`${count(answer.unknown)} items of the history are unknown to the model.`);
  if (answer.items.length < wanted(answer))
    said.push(`The search found ${count(answer.items.length)} of the ${count(wanted(answer))} items asked for.`);
  if (isFiltered()) said.push(`${count(answer.matching)} items may be shown.`);
  return said.join(" ");
}

/** What is shown is, or is no more, the answer to an earlier question. */
function stale(yes) {
  for (const id of ["figures", "results"]) $(id).classList.toggle("stale", yes);
}

function failed(error) {
  stale(true);
  if (error.kind === "refused") {
    showFilterMistake(error.message);
    return notice(error.message, "bad");
  }
  const retry = el("button", { type: "button", text: "Try again", onclick: ask });
  if (error.kind in WAITS) {
    again = setTimeout(ask, AGAIN_MS);
    return notice(`${WAITS[error.kind]} It is asked again every two seconds.`, "bad", retry);
  }
  return notice(error.message, "bad", retry);
}

async function ask() {
  clearTimeout(again);
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  if (!isAsked()) return nothingAsked();
  const asked = question();
  const start = performance.now();
  let answer;
  try {
    answer = await post("query", asked, signal);
  } catch (error) {
    return error.name === "AbortError" ? null : failed(error);
  }
  stale(false);
  showFilterMistake(null);
  notice(remarks(answer) || null);
  showAnswer(answer);
  const tuned = tunedQuestion();
  showFigures({ answer, wanted: wanted(answer), tuned: tuned === null ? undefined : null, person: state.person });
  for (const id of ["copy-curl", "copy-python"]) $(id).disabled = false;
  await painted();
  document.body.dataset.paintedMs = (performance.now() - start).toFixed(1);
  document.body.dataset.answers = Number(document.body.dataset.answers ?? 0) + 1;
  setTimeout(() => signal.aborted || explain(asked, answer, tuned, signal), COMPARE_AFTER_MS);
  return null;
}

const answered = (answer) => answer.items.map((each) => each.item).filter((item) => item !== null);
const comparison = (asked, answer, signal) =>
  post("compare", { question: asked, answer: answered(answer), evaluations: answer.evaluations }, signal);

function unexplained(error, answer, walk) {
  if (error.name === "AbortError") return;
  if (!walk) hideWalk(); // it is of an earlier question
  showComparison({});
  showFigures({ unexplained: true });
  notice(`${remarks(answer)} The answer can't be explained: ${error.message}`.trim(), "bad");
}

async function explain(asked, answer, tuned, signal) {
  let walk = null;
  try {
    walk = await post("walk", asked, signal);
    showWalk(walk);
    showOwn(walk.own);
    if (walk.matching !== answer.matching)
      notice(
        `${remarks(answer)} Of the server's items ${count(answer.matching)} may be shown, of those known here `.trim() +
          ` ${count(walk.matching)}: what explains the answer is not exactly what the server did.`,
      );
    showFigures({ stages: walk.stages_ms });
    const compared = await comparison(asked, answer, signal);
    showComparison(compared);
    showFigures({ compared });
    if (tuned === null) return;
    const other = await post("query", tuned, signal);
    showFigures({ tuned: { answer: other } });
    const { stages_ms: stages } = await post("walk", tuned, signal);
    showFigures({ tuned: { answer: other, stages } });
    const { exhaustive } = await comparison(tuned, other, signal);
    showFigures({ tuned: { answer: other, stages, coverage: exhaustive.answer_coverage } });
  } catch (error) {
    unexplained(error, answer, walk);
  }
}

async function watch() {
  const shown = $("server");
  const corpus = `${count(state.about.items)} items · bundle ${state.about.bundle}`;
  let other = "";
  if (!$("corpus").textContent) $("corpus").textContent = corpus; // a server that is away takes its time
  try {
    const status = await get("status");
    if (status.ready && !status.same_bundle)
      other = ` · the server answers from another bundle, ${status.serves}: start again with that one`;
    else if (status.ready && !status.same_search)
      other = " · the server's copy of this bundle is tuned otherwise: start again with that one";
    shown.dataset.state = status.ready ? "ready" : "away";
    shown.lastChild.textContent = status.ready
      ? `answers at ${state.about.server.grpc}`
      : `no answer at ${state.about.server.grpc}`;
  } catch (error) {
    shown.dataset.state = "away";
    shown.lastChild.textContent = error.message;
  }
  $("corpus").textContent = corpus + other;
  setTimeout(watch, STATUS_MS);
}

async function copy(kind) {
  let text;
  try {
    text = (await post("snippets", question()))[kind];
  } catch (error) {
    return toast(error.message);
  }
  try {
    await navigator.clipboard.writeText(text);
    return toast("Copied");
  } catch {
    $("copied").querySelector("textarea").value = text;
    $("copied").showModal();
    return $("copied").querySelector("textarea").select();
  }
}

async function start() {
  state.about = await get("about");
  startPeople();
  startDials();
  startFilters();
  for (const kind of ["curl", "python"]) $(`copy-${kind}`).addEventListener("click", () => copy(kind));
  whenFocused(pointAt);
  whenPointed(markRow);
  onChange(later(ask, 60));
  watch();
  startHealth();
  startTheme(redrawWalk); // first, as the picture takes its colours from it
  const drawn = startWalk();
  nothingAsked();
  document.body.dataset.ready = performance.now().toFixed(0);
  await drawn;
}

start().catch((error) => notice(error.message, "bad"));
