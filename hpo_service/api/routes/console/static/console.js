// The console: parts of a page are fetched again when something changes, and buttons ask the API.
"use strict";

const HEADER = { "HPO-Console": "1" };
const LEAST_MS = 1000; // between two fetches of a page
const LONGEST_WAIT_MS = 30000; // between two attempts to connect
const SILENT_MS = 45000; // the stream says something at least every 15 s
const AGO_MS = 5000;

const connection = document.getElementById("connection");
const news = document.getElementById("news");
const served = new Map(); // part of the page -> its HTML as the server wrote it
let stream = null;
let failures = 0;
let heardAt = 0;
let retryAt = 0;
let ended = false;
let fetching = false;
let wanted = false;
let notBefore = 0;

// ---- connection -------------------------------------------------------------------------------------------------

function say(state, words) {
  if (connection.className !== `connection ${state}`) connection.className = `connection ${state}`;
  const text = connection.lastElementChild;
  if (text.textContent !== words) text.textContent = words;
}

function connect() {
  if (ended || stream !== null) return;
  const opened = new EventSource("/console/changes");
  stream = opened;
  heardAt = Date.now();
  opened.addEventListener("hello", () => {
    failures = 0;
    heardAt = Date.now();
    say("live", "live");
    refresh(); // what happened between the page and the stream
  });
  opened.addEventListener("change", () => { heardAt = Date.now(); refresh(); });
  opened.addEventListener("alive", () => { heardAt = Date.now(); });
  opened.addEventListener("again", () => { close(); connect(); });
  opened.addEventListener("error", lost);
}

function close() {
  if (stream !== null) stream.close();
  stream = null;
}

function lost() {
  close();
  failures += 1;
  const wait = Math.min(LONGEST_WAIT_MS, 1000 * 2 ** (failures - 1)) * (0.75 + Math.random() / 2);
  retryAt = Date.now() + wait;
  tick();
}

function tick() {
  if (ended || document.hidden) return;
  if (stream !== null) {
    if (Date.now() - heardAt > SILENT_MS) lost();
    return;
  }
  const left = Math.ceil((retryAt - Date.now()) / 1000);
  if (left <= 0) {
    connect();
  } else {
    say("lost", `connection lost, trying again in ${left} s`);
  }
}

function sessionEnded() {
  ended = true;
  close();
  say("lost", "the session has ended; load this page to log in again");
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    close();
    say("", "in the background");
  } else {
    connect();
  }
});

// ---- the parts that live ----------------------------------------------------------------------------------------

async function refresh() {
  wanted = true;
  if (fetching || ended) return;
  fetching = true;
  while (wanted && !ended) {
    const wait = notBefore - Date.now();
    if (wait > 0) await new Promise((done) => setTimeout(done, wait));
    wanted = false;
    const begun = Date.now();
    const busyMs = await fetchPage();
    if (busyMs > 0) wanted = true;
    // A page that takes long is asked for seldom.
    notBefore = Date.now() + Math.max(LEAST_MS, busyMs, 3 * (Date.now() - begun));
  }
  fetching = false;
}

// Answers after how long to look again if the service is too busy now, else 0.
async function fetchPage() {
  try {
    const answer = await fetch(location.href, { headers: { ...HEADER, Accept: "text/html" } });
    if (answer.ok) replaceParts(new DOMParser().parseFromString(await answer.text(), "text/html"));
    else if (answer.status === 401) sessionEnded();
    else if (answer.status === 404) say("lost", "this page is not there any more");
    else if (answer.headers.has("Retry-After")) return 1000 * Number(answer.headers.get("Retry-After"));
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // a TypeError is a network that does not answer
    if (stream !== null) lost();
  }
  return 0;
}

function replaceParts(fresh) {
  document.title = fresh.title;
  for (const part of fresh.querySelectorAll("[data-live]")) {
    const old = document.getElementById(part.id);
    const html = part.outerHTML;
    if (old === null || served.get(part.id) === html || old.querySelector("dialog[open]") !== null) continue;
    served.set(part.id, html);
    replacePart(old, part);
  }
  showAgo();
}

function replacePart(old, part) {
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const place = focused === null ? null : where(focused, old);
  const scrolled = [...old.querySelectorAll(".scroll, .plot")].map((one) => one.scrollLeft);
  const newest = old.querySelector("[data-newest]")?.dataset.newest;
  old.replaceWith(part);
  part.querySelectorAll(".scroll, .plot").forEach((one, index) => { one.scrollLeft = scrolled[index] ?? 0; });
  if (place !== null) find(place, part)?.focus({ preventScroll: true });
  const events = part.querySelector("[data-newest]");
  if (events !== null && newest !== undefined && events.dataset.newest !== newest) {
    news.textContent = events.querySelector("li > span").textContent;
  }
}

// An element is found again by its id, else as the same link, the so many-th of its address.
function where(element, part) {
  if (element.id) return { id: element.id };
  const address = element.getAttribute("href");
  if (address === null) return null;
  const same = [...part.querySelectorAll("a[href]")].filter((one) => one.getAttribute("href") === address);
  return { address, index: same.indexOf(element) };
}

function find(place, part) {
  if (place === null) return null;
  if (place.id) return part.querySelector(`#${CSS.escape(place.id)}`);
  const same = [...part.querySelectorAll("a[href]")].filter((one) => one.getAttribute("href") === place.address);
  return same[place.index] ?? same[0] ?? null;
}

// ---- times ------------------------------------------------------------------------------------------------------

function showAgo() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const when = new Date(time.dateTime);
    const words = "at" in time.dataset ? clock(when) : ago((Date.now() - when.getTime()) / 1000);
    if (time.textContent !== words) time.textContent = words;
    if (time.title === "") time.title = when.toLocaleString();
  }
}

function ago(seconds) {
  if (seconds < 5) return "now";
  if (seconds < 100) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} d ago`;
}

function clock(when) {
  const today = when.toDateString() === new Date().toDateString();
  const parts = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...(today ? {} : { day: "numeric", month: "short" }) };
  return when.toLocaleString(undefined, parts);
}

// ---- asking the API ---------------------------------------------------------------------------------------------

async function ask(asker, body, etag) {
  const headers = { ...HEADER, Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (etag) headers["If-Match"] = etag;
  if (asker.dataset.method === "POST") headers["Idempotency-Key"] = key();
  let answer;
  try {
    answer = await fetch(asker.dataset.url, {
      method: asker.dataset.method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return "The service did not answer; look whether it happened before you try again.";
  }
  if (answer.ok) return null;
  if (answer.status === 401) sessionEnded();
  const problem = await answer.json().catch(() => ({}));
  return problem.detail ?? `The service answered ${answer.status}.`;
}

function key() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((one) => one.toString(16).padStart(2, "0")).join("");
}

// `kind` is said, refused, or nothing while it is not known yet.
function tell(place, kind, words) {
  if (place === null) return;
  place.className = `outcome ${kind}`;
  place.textContent = words;
}

async function press(button) {
  if (button.dataset.confirm !== undefined && !(await confirmed(button))) return;
  const place = document.getElementById(button.closest("[data-outcome]")?.dataset.outcome ?? "page-outcome");
  const identifier = button.id;
  button.disabled = true;
  tell(place, "", "…");
  const body = button.dataset.body === undefined ? undefined : JSON.parse(button.dataset.body);
  const failure = await ask(button, body);
  button.disabled = false;
  tell(place, failure === null ? "said" : "refused", failure ?? button.dataset.done);
  if (failure === null && button.dataset.go !== undefined) location.assign(button.dataset.go);
  else await refresh();
  if (document.activeElement === document.body) document.getElementById(identifier)?.focus();
}

function confirmed(button) {
  const dialog = document.getElementById("confirm");
  const yes = document.getElementById("confirm-yes");
  document.getElementById("confirm-question").textContent = button.dataset.confirm;
  yes.textContent = button.textContent;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((answer) => {
    yes.onclick = () => dialog.close("yes");
    dialog.onclose = () => answer(dialog.returnValue === "yes");
  });
}

function open(opener) {
  const dialog = document.getElementById(opener.dataset.opens);
  const form = dialog.querySelector("form");
  form.reset();
  form.dataset.etag = opener.dataset.etag ?? "";
  tell(form.querySelector(".outcome"), "", "");
  dialog.showModal();
  form.querySelector("input, select")?.focus();
}

async function submit(form) {
  const place = form.querySelector(".outcome");
  const sender = form.querySelector("[type=submit]");
  const body = content(form);
  sender.disabled = true;
  const failure = await ask(form, body, form.dataset.etag);
  sender.disabled = false;
  tell(place, failure === null ? "" : "refused", failure ?? "");
  if (failure !== null) return;
  form.closest("dialog").close();
  tell(document.getElementById("page-outcome"), "said", form.dataset.done);
  if (form.dataset.go !== undefined) location.assign(form.dataset.go);
  else await refresh();
}

function content(form) {
  const body = form.dataset.body === undefined ? {} : JSON.parse(form.dataset.body);
  for (const field of form.elements) {
    const text = (field.value ?? "").trim();
    if (!field.name || text === "") continue;
    if ("changedOnly" in field.dataset && text === field.defaultValue) continue;
    const [section, ...rest] = field.name.split(".");
    const value = field.dataset.kind === "text" ? text : read(text);
    if (rest.length === 0) body[section] = value;
    else (body[section] ??= {})[rest.join(".")] = value;
  }
  return body;
}

// What is no number stays as it was written, so that the service can say what is wrong with it.
function read(text) {
  if (text === "true" || text === "false") return text === "true";
  const value = Number(text);
  return Number.isFinite(value) ? value : text;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button === null) return;
  if (button.dataset.url !== undefined) press(button);
  else if (button.dataset.opens !== undefined) open(button);
  else if (button.dataset.close !== undefined) button.closest("dialog").close();
});

document.addEventListener("submit", (event) => {
  event.preventDefault();
  submit(event.target);
});

for (const part of document.querySelectorAll("[data-live]")) served.set(part.id, part.outerHTML);
showAgo();
setInterval(showAgo, AGO_MS);
setInterval(tick, 1000);
connect();
