// New import: the first records of the chosen file before it is uploaded, and a check of the whole file.
"use strict";

(() => {
  const form = $("#upload"), place = $("#checked"), said = $("#check-said"), button = $("#check-only");
  if (!form || !place) return;
  const FIRST = 20, HASHED_BYTES = 64e6;
  let file = null, asked = null, soon = null;

  form.addEventListener("chosen", (event) => {
    file = event.detail;
    button.disabled = !file;
    look(false);
  });
  form.addEventListener("change", (event) => {  // what follows from kind, domain and template comes from the server first
    clearTimeout(soon);
    if (event.target.id !== "file" && !event.target.closest(".fields")) soon = setTimeout(() => look(false), 300);
  });
  document.addEventListener("htmx:afterSwap", (event) => { if (event.detail.target.id === "choices") look(false); });
  button.addEventListener("click", () => look(true));

  async function look(whole) {
    asked?.abort();
    place.replaceChildren();
    said.textContent = "";
    if (!file || !form.elements.template?.value) return;
    const asking = asked = new AbortController();
    waiting(whole);
    const part = !whole && file.size > Number(form.dataset.part);
    const body = part ? file.slice(0, Number(form.dataset.part)) : file;
    const query = new URLSearchParams({ file_name: file.name, first: FIRST, part });
    for (const [name, value] of new FormData(form)) if (typeof value === "string") query.append(name, value);
    const headers = { ...OWN, "Content-Type": "text/csv", "HX-Request": "true" };
    const hash = part ? await hashOf(file) : null;
    if (hash) headers["X-Content-SHA256"] = hash;
    if (asking.signal.aborted) return;
    try {
      const answer = await fetch(`${ROOT}/new/check?${query}`, { method: "POST", headers, body, signal: asking.signal });
      const text = await answer.text();
      if (asking !== asked) return;
      if (answer.ok) {
        place.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
        said.textContent = "The check is done; nothing was imported yet.";
      } else tell((await problemOf(answer.status, text)).detail);
    } catch (error) {
      if (asking === asked) tell(error.name === "AbortError" ? "The check was stopped." : "The server does not answer. Try again in a moment.");
    }
  }

  // So that a file that was uploaded before is noticed although only its beginning is sent.
  async function hashOf(chosen) {
    if (!window.crypto?.subtle || chosen.size > HASHED_BYTES) return null;
    try {
      const digest = await crypto.subtle.digest("SHA-256", await chosen.arrayBuffer());
      return [...new Uint8Array(digest)].map((b) => b.toString(16).padStart(2, "0")).join("");
    } catch { return null; }
  }

  function waiting(whole) {
    said.textContent = `${whole ? "The whole file is being checked" : "The first records are being read"} … the first check takes some seconds.`;
    if (!whole) return;
    const stop = document.createElement("button");
    stop.type = "button";
    stop.className = "button small";
    stop.textContent = "Stop the check";
    stop.addEventListener("click", () => asked.abort());
    place.replaceChildren(stop);
  }

  function tell(sentence) {
    const line = document.createElement("p");
    line.className = "note warning";
    line.textContent = sentence;
    place.replaceChildren(line);
    said.textContent = "";
  }
})();
