// What the page does beyond links and forms: it follows changes, and has a few keys. Without it all is there, and stands still.
"use strict";

const SAID_EVERY_MS = 10_000;
const parts = () => [...document.querySelectorAll("[data-live]")];
const seen = new Map(parts().map((part) => [part.id, part.outerHTML]));
let source, said = 0;

/** Puts in what has changed. What a person is writing in, has opened or has selected stays. */
function renew(html) {
  const next = new DOMParser().parseFromString(html, "text/html");
  document.title = next.title;
  for (const part of parts()) {
    const other = next.getElementById(part.id);
    if (!other || other.outerHTML === seen.get(part.id) || isInUse(part)) continue;
    seen.set(part.id, other.outerHTML);
    if (part.dataset.state !== other.dataset.state) say(other.dataset.state);
    for (const open of part.querySelectorAll("details[open]")) next.getElementById(open.id)?.setAttribute("open", "");
    const active = part.contains(document.activeElement) ? place(document.activeElement) : null;
    const scrolled = [...part.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
    part.replaceWith(document.adoptNode(other));
    [...other.querySelectorAll(".scroll")].forEach((one, at) => { one.scrollLeft = scrolled[at] ?? 0; });
    if (active) find(other, active)?.focus({ preventScroll: true });
  }
}

function isInUse(part) {
  const active = document.activeElement;
  if (part.contains(active) && active.matches("input, select, audio")) return true;
  if ([...part.querySelectorAll("input:not([type=hidden])")].some((field) => field.value !== field.defaultValue)) return true;
  if ([...part.querySelectorAll("audio")].some((sound) => !sound.paused)) return true;
  const selection = getSelection();
  return !selection.isCollapsed && part.contains(selection.anchorNode);
}

/** An element by its name for a reader, since a renewed one is another. */
const place = (element) => [element.localName, element.getAttribute("aria-label") ?? element.textContent];
const find = (part, [name, text]) =>
  [...part.querySelectorAll(name)].find((one) => (one.getAttribute("aria-label") ?? one.textContent) === text);

function say(text) {
  const now = Date.now();
  if (!text || now - said < SAID_EVERY_MS) return;
  said = now;
  document.getElementById("said").textContent = text;
}

/** Follows while somebody looks. */
function follow() {
  source?.close();
  source = undefined;
  if (document.hidden || !document.body.dataset.liveFrom) return;
  source = new EventSource(document.body.dataset.liveFrom);
  source.addEventListener("page", (event) => { lost(false); renew(event.data); });
  source.addEventListener("error", () => lost(true));
}

function lost(isLost) {
  const note = document.getElementById("link");
  if (note) note.hidden = !isLost;
}

/** Marks the next or last job of the table, and goes there. */
function step(by) {
  const rows = [...document.querySelectorAll("table.jobs tbody tr")];
  const at = rows.findIndex((row) => row.contains(document.activeElement));
  const row = rows[Math.min(Math.max(at + by, 0), rows.length - 1)];
  row?.querySelector("a")?.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input, select, textarea")) return;
  if (event.key === "/" && document.getElementById("q")) { event.preventDefault(); document.getElementById("q").focus(); }
  if (event.key === "j") step(1);
  if (event.key === "k") step(-1);
});

document.addEventListener("click", (event) => {
  const seconds = event.target.closest("a[data-seconds]")?.dataset.seconds;
  const player = document.getElementById("player");
  if (seconds === undefined || !player) return;
  event.preventDefault();
  player.currentTime = Number(seconds);
  player.play();
});

document.addEventListener("visibilitychange", follow);
addEventListener("pagehide", () => source?.close());
addEventListener("pageshow", (event) => { if (event.persisted) follow(); });
follow();
