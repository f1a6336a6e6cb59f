// Mend here: ticks what is changed, checks what is ticked, sends it as a new import. Uses what desk.js has.
"use strict";

(() => {
  const WOULD = { created: "Would be created.", updated: "Would be updated.", unchanged: "Would change nothing: what it says is there already.",
    historic: "Would go into the history only.", ignored: "Would be ignored.", parked: "Would be parked: it waits for something that does not exist yet.",
    rejected: "Would be rejected again.", unprocessed: "Is right, but would not be imported: the import as a whole would fail." };
  const WRONG = ["rejected", "unprocessed"];
  let key = null, busy = false;

  const form = () => $("#mend");
  const recordsOf = () => $$("fieldset.record", form());
  const ticked = () => recordsOf().filter((record) => $(".tick", record).checked);
  const inputs = (record) => $$(".cell-in input, .cell-in textarea", record);
  const unsent = () => form() && recordsOf().some((record) => record.dataset.changed !== undefined);
  const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

  // The cells as they are to stand in the file; fields beyond the last column go if they are empty.
  function cellsOf(record) {
    const cells = inputs(record).map((input) => input.value);
    while (cells.length > Number(record.dataset.width) && cells.at(-1) === "") cells.pop();
    return cells;
  }

  const told = () => ({ records: ticked().map((record) => ({ record_no: Number(record.dataset.record), cells: cellsOf(record) })) });

  function update() {
    if (!form()) return;
    const count = ticked().length, all = recordsOf().length;
    $("#mend-check").disabled = $("#mend-send").disabled = busy || !count;
    if (busy) return;
    const wrong = ticked().filter((record) => WRONG.includes(record.dataset.verdict)).length;
    const right = ticked().filter((record) => record.dataset.verdict && !WRONG.includes(record.dataset.verdict)).length;
    const checked = wrong + right ? ` Checked: ${right} right, ${wrong} wrong${count > wrong + right ? `, ${count - wrong - right} not yet` : ""}.` : "";
    $("#mend-said").textContent = count
      ? `${plural(count, "record")} of this page will be sent; ${all - count} will not, and stay rejected here.${checked}`
      : "No record is ticked yet.";
  }

  function changed(record) {
    key = null;
    delete record.dataset.verdict;
    $(".verdict", record).hidden = true;
    record.dataset.changed = "";
  }

  document.addEventListener("input", (event) => {
    const record = event.target.closest?.("#mend fieldset.record");
    if (!record) return;
    key = null;
    if (!event.target.matches(".tick")) {
      changed(record);
      $(".tick", record).checked = true;
      faultAt(event.target.closest(".cell-in"), []);
    }
    update();
  });

  // In a field, Enter would send everything that is ticked.
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.matches?.("#mend input")) event.preventDefault();
  });

  function faultAt(place, sentences) {
    const input = $("input, textarea", place), fault = $(".fault", place);
    fault.hidden = !sentences.length;
    fault.replaceChildren(...sentences.map((sentence) => Object.assign(document.createElement("bdi"), { textContent: `${sentence} ` })));
    if (sentences.length) {
      input.setAttribute("aria-invalid", "true");
      input.setAttribute("aria-describedby", fault.id);
    } else {
      input.removeAttribute("aria-invalid");
      input.removeAttribute("aria-describedby");
    }
  }

  // A value that was torn apart, or a field that is missing: the fields to the right move.
  document.addEventListener("click", (event) => {
    const button = event.target.closest("#mend .join, #mend .insert");
    if (!button) return;
    const record = button.closest("fieldset.record"), fields = inputs(record);
    const at = fields.indexOf($("input, textarea", button.closest(".cell-in")));
    const values = fields.map((input) => input.value);
    if (button.matches(".join")) values.splice(at, 2, values[at] + form().dataset.delimiter + values[at + 1]), values.push("");
    else if (values.at(-1) === "") values.splice(at, 0, ""), values.pop();
    else return say(`The last field of record ${record.dataset.record} is filled; empty it first.`, "warning");
    fields.forEach((input, place) => { input.value = values[place]; });
    for (const place of $$(".cell-in", record)) faultAt(place, []);
    changed(record);
    $(".tick", record).checked = true;
    update();
  });

  async function post(check) {
    const headers = { ...OWN, "Content-Type": "application/json" };
    if (!check) headers["Idempotency-Key"] = key ??= [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
    busy = true;
    update();
    $("#mend-said").textContent = check ? "Checking … the first check takes some seconds." : "Sending …";
    try {
      const answer = await fetch(`${ROOT}/api/v1/batches/${form().dataset.batch}/mended${check ? "?check=true" : ""}`, { method: "POST", headers, body: JSON.stringify(told()) });
      const text = await answer.text();
      if (answer.ok) return JSON.parse(text);
      say((await problemOf(answer.status, text)).detail, "error");
    } catch {
      say("The server does not answer. Try again in a moment.", "error");
    } finally {
      busy = false;
      update();
    }
    return null;
  }

  async function check() {
    const answer = await post(true);
    if (!answer) return;
    const found = new Map(answer.records.map((one) => [one.record_no, one]));
    for (const record of ticked()) show(record, found.get(Number(record.dataset.record)));
    const whole = !answer.records.length || answer.records.some((one) => one.outcome === "unprocessed");
    if (answer.error_message && whole) say(`The import would fail: ${answer.error_message}`, "error");
    else $("#notice").replaceChildren();
    update();
    ticked().map((record) => $("[aria-invalid]", record)).find(Boolean)?.focus();
  }

  function show(record, one) {
    if (!one) return;
    record.dataset.verdict = one.outcome;
    const verdict = $(".verdict", record);
    verdict.hidden = false;
    verdict.className = `verdict ${WRONG.includes(one.outcome) ? "bad" : "good"}`;
    verdict.textContent = WOULD[one.outcome];
    const rest = [...(one.reasons ?? []), ...(one.warnings ?? [])];
    for (const place of $$(".cell-in", record)) {
      const here = (one.reasons ?? []).filter((reason) => reason.column === place.dataset.column);
      faultAt(place, here.map((reason) => reason.message));
      for (const reason of here) rest.splice(rest.indexOf(reason), 1);
    }
    $(".reasons", record).replaceChildren(...rest.map((reason) => {
      const line = document.createElement("p");
      line.className = (one.reasons ?? []).includes(reason) ? "reason bad" : "reason";
      line.append(Object.assign(document.createElement("bdi"), { textContent: reason.message }));
      return line;
    }));
  }

  async function send() {
    const sent = ticked();
    const answer = await post(false);
    if (!answer) return;
    for (const record of sent) record.remove();
    key = null;
    say(answer.message, "done", { href: `${ROOT}/batches/${answer.seqno}`, text: `Open import ${answer.seqno}` });
    if (recordsOf().length) {
      const left = $("#mend-left");
      left.textContent = (Number(left.textContent.replaceAll(",", "")) - sent.length).toLocaleString("en");
      update();
    } else htmx.ajax("GET", form().dataset.list, "#to-mend");
  }

  document.addEventListener("submit", (event) => {
    if (!event.target.matches("#mend")) return;
    event.preventDefault();
    if (busy || !ticked().length) return;
    const wrong = ticked().filter((record) => WRONG.includes(record.dataset.verdict));
    if (!wrong.length) return void send();
    $("#wrong-said").textContent = `${plural(wrong.length, "record")} would be rejected again, as they are now: record ${wrong.map((record) => record.dataset.record).join(", ")}.`;
    $("#ask-wrong").showModal();
  });

  // Who types before this script is there has changed a record all the same.
  for (const record of form() ? recordsOf() : []) {
    if (inputs(record).every((input) => input.value === input.defaultValue)) continue;
    changed(record);
    $(".tick", record).checked = true;
  }
  update();

  let leaveFor = null;
  document.addEventListener("click", (event) => {
    if (event.target.closest("#mend-check")) check();
    if (event.target.closest("#send-wrong")) { $("#ask-wrong").close(); send(); }
    const page = event.target.closest("[data-page]");
    if (page) {
      leaveFor = () => htmx.ajax("GET", page.dataset.page, "#to-mend");
      if (unsent()) $("#ask-leave").showModal();
      else leaveFor();
    }
    if (event.target.closest("#leave")) { $("#ask-leave").close(); leaveFor(); }
  });

  // Before whoever else listens to a link: what was changed is not lost without a question.
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    if (!link || link.target === "_blank" || event.ctrlKey || event.metaKey || event.shiftKey || !unsent()) return;
    event.preventDefault();
    event.stopPropagation();
    leaveFor = () => { location.href = link.href; };
    $("#ask-leave").showModal();
  }, true);
})();
