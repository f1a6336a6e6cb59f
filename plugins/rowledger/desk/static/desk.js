// What htmx does not do: requests to the API with what the guard asks for, asking first, live lists, uploads.
"use strict";

const ROOT = document.body.dataset.root;
const OWN = { "X-Rowledger": "page" };
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

// ---- Saying what happened -------------------------------------------------------------------------------------

function say(sentence, how = "done", link = null) {
  const line = document.createElement("p");
  line.className = `note ${how}`;
  line.append(sentence);
  if (link) {
    const to = document.createElement("a");
    to.href = link.href;
    to.textContent = link.text;
    line.append(" ", to);
  }
  const close = document.createElement("button");
  close.type = "button";
  close.className = "link close";
  close.textContent = "✕";
  close.setAttribute("aria-label", "Close this message");
  close.addEventListener("click", () => line.remove());
  line.append(close);
  $("#notice").replaceChildren(line);
}

async function problemOf(status, text) {
  if (status === 401) return { detail: "Your session has ended. Sign in to Airflow in another tab of this browser, then try again here: what you typed stays." };
  try { return JSON.parse(text); } catch { return { detail: `The server answered ${status}. Try again in a moment.` }; }
}

document.addEventListener("htmx:responseError", async (event) => {
  const { status, responseText } = event.detail.xhr;
  say((await problemOf(status, responseText)).detail, "error");
});
document.addEventListener("htmx:sendError", () => say("The server does not answer. Try again in a moment.", "error"));

// ---- htmx -----------------------------------------------------------------------------------------------------

document.addEventListener("htmx:configRequest", (event) => {
  Object.assign(event.detail.headers, OWN);
  const told = event.detail.parameters;
  for (const name of Object.keys(told)) if (told[name] === "") delete told[name];
});
document.addEventListener("htmx:beforeSwap", (event) => {
  const open = $("dialog[open]");  // what somebody is answering does not go away under their hands
  if (open && event.detail.target.contains(open)) event.detail.shouldSwap = false;
});
document.addEventListener("htmx:afterSwap", () => times());

// ---- Moments in the time zone that Airflow shows --------------------------------------------------------------

function zone() {
  try {
    const kept = localStorage.getItem("timezone");
    const name = kept && (kept.startsWith('"') ? JSON.parse(kept) : kept);
    if (!name || name === "UTC") return "UTC";
    return name === "local" ? undefined : name;
  } catch { return "UTC"; }
}

function times(within = document) {
  const timeZone = zone();
  if (timeZone === "UTC") return;
  let shown;
  try {
    shown = new Intl.DateTimeFormat("sv-SE", { timeZone, dateStyle: "short", timeStyle: "short" });
  } catch { return; }
  for (const one of $$("time[datetime]:not([data-shown])", within)) {
    one.title = one.textContent;
    one.textContent = shown.format(new Date(one.dateTime));
    one.dataset.shown = "";
  }
}
times();

// ---- Tabs -----------------------------------------------------------------------------------------------------

function select(tab) {
  for (const one of $$("[role=tab]")) {
    one.setAttribute("aria-selected", one === tab ? "true" : "false");
    one.tabIndex = one === tab ? 0 : -1;
  }
  $("#tab").setAttribute("aria-labelledby", tab.id);
}
document.addEventListener("click", (event) => {
  const tab = event.target.closest("[role=tab]") || (event.target.closest("[data-tab]") && $(`#${event.target.closest("[data-tab]").dataset.tab}`));
  if (tab) select(tab);
});
document.addEventListener("keydown", (event) => {
  const tab = event.target.closest?.("[role=tab]");
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!tab || !step) return;
  const tabs = $$("[role=tab]");
  const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
  next.focus();
  next.click();
});

// ---- Asking first, and requests to the API --------------------------------------------------------------------
// <form data-api="POST /path" data-if-match="…" data-refresh="#element" data-go="/path/{seqno}">: its fields go as JSON;
// afterwards the element gets the event "refresh", or the page goes on. Faults are shown at the fields they name.

document.addEventListener("click", (event) => {
  const asks = event.target.closest("[data-ask]");
  if (asks) document.getElementById(asks.dataset.ask).showModal();
  if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
});

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-api]");
  if (!form) return;
  event.preventDefault();
  const [method, path] = form.dataset.api.split(" ");
  const headers = { ...OWN };
  if (form.dataset.ifMatch) headers["If-Match"] = form.dataset.ifMatch;
  const fields = fieldsOf(form);
  if (Object.keys(fields).length) headers["Content-Type"] = "application/json";
  const button = $("button:not([type=button])", form);
  if (button) button.disabled = true;
  try {
    const answer = await fetch(path, { method, headers, body: Object.keys(fields).length ? JSON.stringify(fields) : undefined });
    const text = await answer.text();
    if (answer.ok) succeeded(form, text ? JSON.parse(text) : {});
    else failed(form, await problemOf(answer.status, text));
  } catch {
    failed(form, { detail: "The server does not answer. Try again in a moment." });
  } finally {
    if (button) button.disabled = false;
  }
});

function fieldsOf(form) {
  const fields = {};
  for (const [name, value] of new FormData(form)) {
    const field = form.elements[name];
    const isList = field instanceof RadioNodeList && field[0]?.type === "checkbox" || field.dataset?.list !== undefined;
    if (isList) (fields[name] ??= []).push(value);
    else if (field.dataset?.lines !== undefined) fields[name] = value.split("\n").map((line) => line.trim()).filter(Boolean);
    else fields[name] = field.dataset?.type === "number" ? (value === "" ? null : Number(value)) : value;
  }
  for (const box of $$("input[type=checkbox][data-switch]", form)) fields[box.name] = box.checked;
  return fields;
}

function succeeded(form, told) {
  form.closest("dialog")?.close();
  const onward = told.seqno && form.dataset.api.endsWith("/reprocess") ? { href: `${ROOT}/batches/${told.seqno}`, text: "Open it" } : null;
  if (told.message) say(told.message, "done", onward);
  if (form.dataset.go) window.location.assign(form.dataset.go.replace("{seqno}", told.seqno));
  else if (form.dataset.refresh) $(form.dataset.refresh)?.dispatchEvent(new CustomEvent("refresh", { bubbles: true }));
}

function failed(form, problem) {
  for (const old of $$(".fault", form)) old.remove();
  let told = false;
  for (const { field, message } of problem.errors ?? []) {
    const input = form.elements[field];
    if (!input || input instanceof RadioNodeList) continue;
    const fault = document.createElement("p");
    fault.className = "fault bad";
    fault.id = `fault-${field}`;
    fault.textContent = message;
    input.after(fault);
    input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-describedby", fault.id);
    told = true;
  }
  if (told) return;
  form.closest("dialog")?.close();
  say(problem.detail, "error");
  if (form.dataset.refresh) $(form.dataset.refresh)?.dispatchEvent(new CustomEvent("refresh", { bubbles: true }));
}

// ---- Pages of Airflow, out of the frame -----------------------------------------------------------------------

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-airflow]");
  if (!link || window.parent === window) return;
  event.preventDefault();  // a frame may not lead its parent elsewhere; a link of the parent may
  const outside = window.parent.document.createElement("a");
  outside.href = link.href;
  if (event.ctrlKey || event.metaKey) outside.target = "_blank";
  outside.click();
});

// ---- Live lists: only rows that changed are touched -----------------------------------------------------------

const LIVE_SECONDS = 3;
async function changes() {
  const table = $("#batches");
  if (!table || !$("#live")?.checked || document.hidden) return;
  const rows = $$("tbody tr", table);
  const seen = rows.map((row) => `${row.dataset.seqno}-${row.dataset.version}`).join(",");
  const newest = table.dataset.first ? `&newest=${rows[0]?.dataset.seqno ?? 0}` : "";
  const answer = await fetch(`${ROOT}/changes?seen=${seen}${newest}`, { headers: { "HX-Request": "true" } });
  if (answer.status === 401) {
    $("#live").checked = false;
    say((await problemOf(401, "")).detail, "error");
  }
  if (answer.status !== 200) return;
  const told = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const row of $$("tbody tr", told)) document.getElementById(row.id)?.replaceWith(document.adoptNode(row));
  const newer = $("#newer", told);
  if (newer) $("#newer")?.replaceWith(document.adoptNode(newer));
  times();
}
setInterval(() => changes().catch(() => {}), LIVE_SECONDS * 1000);

// ---- Uploads: the raw bytes, with progress --------------------------------------------------------------------

(() => {
  const form = $("#upload");
  if (!form) return;
  const input = $("#file"), drop = $("#drop"), said = $("#file-said"), send = $("#send"), stop = $("#stop");
  let running = null, key = null, chosen = null;

  const choose = (file) => {
    chosen = file;
    key = null;
    const tooLarge = file && file.size > Number(form.dataset.limit);
    said.textContent = !file ? "" : `${file.name}, ${size(file.size)}${tooLarge ? ": larger than what is allowed; cut it into smaller files." : ""}`;
    said.className = tooLarge ? "bad" : "";
    send.disabled = !file || tooLarge;
    form.dispatchEvent(new CustomEvent("chosen", { detail: tooLarge ? null : file }));
  };
  const size = (bytes) => bytes < 1e3 ? `${bytes} bytes` : bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;

  input.addEventListener("change", () => choose(input.files[0] ?? null));
  for (const name of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop" && event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
    });
  }
  form.addEventListener("change", (event) => { if (event.target !== input) key = null; });
  stop.addEventListener("click", () => running?.abort());
  form.addEventListener("submit", (event) => { event.preventDefault(); upload(false); });
  send.disabled = true;

  function upload(again) {
    if (!chosen || running) return;
    key ??= newKey();
    const query = new URLSearchParams({ file_name: chosen.name });
    for (const [name, value] of new FormData(form)) if (typeof value === "string") query.append(name, value);
    if (again) query.set("again", "true");
    const request = running = new XMLHttpRequest();
    request.open("POST", `${ROOT}/api/v1/batches?${query}`);
    request.setRequestHeader("Content-Type", "text/csv");
    request.setRequestHeader("Idempotency-Key", again ? `${key}-again` : key);
    request.setRequestHeader("X-Rowledger", "page");
    const begun = performance.now();
    request.upload.addEventListener("progress", (event) => {
      const share = event.loaded / event.total, seconds = (performance.now() - begun) / 1000;
      $("#upload-progress").value = share;
      const left = share > 0 && seconds > 2 ? `, about ${Math.ceil(seconds / share - seconds)} s left` : "";
      $("#upload-said").textContent = share < 1 ? `${size(event.loaded)} of ${size(event.total)}${left}` : "The file has arrived and is being kept …";
    });
    request.addEventListener("loadend", () => ended(request));
    busy(true);
    request.send(chosen);
  }

  async function ended(request) {
    running = null;
    busy(false);
    if (request.status === 201) {
      window.location.assign(`${ROOT}/batches/${JSON.parse(request.responseText).seqno}`);
      return;
    }
    if (request.status === 0) {
      say("The upload was stopped or broke off; nothing was imported. Upload it again.", "error");
      return;
    }
    const problem = await problemOf(request.status, request.responseText);
    if (request.status !== 409 || !problem.seqno) {
      say(problem.detail, "error");
      return;
    }
    say(problem.detail, "warning", { href: `${ROOT}/batches/${problem.seqno}`, text: `Open import ${problem.seqno}` });
    const more = document.createElement("button");
    more.type = "button";
    more.className = "button small";
    more.textContent = "Import it once more all the same";
    more.addEventListener("click", () => { more.remove(); upload(true); });
    $("#notice .note").append(" ", more);
  }

  function busy(is) {
    $("#arriving").hidden = !is;
    stop.hidden = !is;
    send.disabled = is;
    $("#notice").replaceChildren();
  }

  const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
})();
