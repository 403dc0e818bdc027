// What the pages of the admin do by themselves. Without it they work as well: a page is then as old as it is.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const page = document.querySelector(".st-page");
  if (!page) return;
  const typing = (target) => target.closest?.("input, textarea, select, [contenteditable]");

  // The form of the filters: what is empty stays out of the address, and what the browser kept of a
  // choice that was never applied is gone when one comes back.
  const form = page.querySelector("form.st-bar");
  form?.addEventListener("submit", () => {
    for (const field of form.elements) field.disabled ||= field.name !== "" && field.value === "";
  });
  window.addEventListener("pageshow", () => {
    for (const field of form?.elements ?? []) field.disabled = false;
    form?.reset();
  });

  // The whole row is a link; what has a title of its own lies above it.
  page.addEventListener("click", (event) => {
    const link = event.target.closest("a, button, input, label, summary") ? null : event.target.closest("tr")?.querySelector("th a");
    if (link && !String(getSelection())) link.dispatchEvent(new MouseEvent("click", event));
  });

  // An open menu closes when another place is clicked, or with Escape.
  const close = (except) => page.querySelectorAll("details.st-menu[open]").forEach((menu) => { menu.open = menu === except; });
  document.addEventListener("click", (event) => close(event.target.closest("details.st-menu")));

  // The keys, unless somebody has switched them off: a speech recogniser may press them.
  const keys = page.querySelector("[data-keys]");
  if (keys) {
    keys.checked = localStorage.getItem("systemtasks.keys") !== "off";
    keys.addEventListener("change", () => localStorage.setItem("systemtasks.keys", keys.checked ? "on" : "off"));
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close(null);
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || !keys?.checked) return;
    const search = page.querySelector("[data-search]");
    if (event.key === "/" && search) { event.preventDefault(); search.focus(); search.select(); }
    if (event.key === "p") pause?.click();
  });

  // The rows that are selected: the button says so, and one box selects all.
  const act = page.querySelector("[data-selected]");
  const all = page.querySelector("[data-select-all]");
  const boxes = () => [...page.querySelectorAll("#st-rows input[name=row]")];
  function showSelection() {
    const count = boxes().filter((box) => box.checked).length;
    act.disabled = count === 0;
    all.checked = count > 0 && count === boxes().length;
    all.indeterminate = count > 0 && !all.checked;
  }
  if (act && all) {
    all.hidden = false;
    all.addEventListener("change", () => { for (const box of boxes()) box.checked = all.checked; showSelection(); });
    page.addEventListener("change", (event) => { if (event.target.matches("#st-rows input")) showSelection(); });
    window.addEventListener("pageshow", showSelection);
    showSelection();
  }

  // A form that sends something is sent once, however often its button is clicked.
  const once = page.querySelector("form[data-once]");
  once?.addEventListener("submit", (event) => {
    if (once.dataset.once === "sent") event.preventDefault();
    once.dataset.once = "sent";
  });
  window.addEventListener("pageshow", () => { if (once) once.dataset.once = ""; });

  // The address of a page that was made by a form, so that a reload does not send the form again.
  const address = page.querySelector("[data-address]")?.dataset.address;
  if (address) history.replaceState(null, "", address);

  // A page that refreshes itself: it asks for its own address, and takes over what is in data-live.
  const live = page.querySelector("[data-live-page]");
  const pause = page.querySelector("[data-live-pause]");
  if (!live || !pause) return;
  const SECONDS = 5;
  const state = page.querySelector("[data-live-state]");
  let timer = 0;

  const show = (name) => { state.dataset.state = name; state.textContent = state.dataset[name] ?? ""; };
  // Rows stay where they are while somebody points at one, is in one with the keyboard, reads on
  // further below, or has marked a text.
  const isRead = (rows) => rows.querySelector("input:checked") !== null || rows.matches(":hover, :focus-within") || String(getSelection()) !== "" || rows.getBoundingClientRect().top < 0;

  function refreshCells(old, fresh) {
    for (const [index, cell] of [...old.cells].entries()) {
      const other = fresh.cells[index];
      if (!other || cell.innerHTML === other.innerHTML) continue;
      const link = cell.querySelector(":scope > a"), newLink = other.querySelector(":scope > a");
      if (link && newLink) link.innerHTML = newLink.innerHTML; // it keeps the focus
      else cell.innerHTML = other.innerHTML;
    }
  }

  function refreshRows(rows, fresh) {
    const byKey = new Map([...fresh.rows].map((row) => [row.dataset.key, row]));
    for (const row of rows.rows) {
      const other = byKey.get(row.dataset.key);
      if (other) refreshCells(row, other);
    }
    const order = (body) => [...body.rows].map((row) => row.dataset.key).join();
    if (order(rows) === order(fresh)) return true;
    if (isRead(rows)) return false;
    rows.replaceChildren(...fresh.rows);
    return true;
  }

  // A log only grows. What is there stays as it is: folded or not, and where somebody reads.
  function appendNew(part, fresh) {
    part.querySelector(":scope > .st-nothing")?.remove();
    // But a run's progress is one message, which changes as long as it is the last one.
    const last = part.children.length - 1, other = fresh.children[last];
    if (other && part.children[last].textContent !== other.textContent) part.children[last].replaceWith(other.cloneNode(true));
    part.append(...[...fresh.children].slice(part.children.length));
  }

  async function refresh() {
    let isWhole = true;
    try {
      const answer = await fetch(location.href, { headers: { "X-Systemtasks-Live": "1" } });
      if (!answer.ok || answer.redirected) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (pause.getAttribute("aria-pressed") === "true") return;
      for (const part of live.querySelectorAll("[data-live]")) {
        const other = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
        if (!other) continue;
        if (part.matches("[data-live-append]")) appendNew(part, other);
        else if (part.tagName === "TBODY") isWhole = refreshRows(part, other) && isWhole;
        else if (part.innerHTML !== other.innerHTML && !part.matches(":focus-within")) part.innerHTML = other.innerHTML;
      }
      show(isWhole ? "current" : "waiting");
      if (!fresh.querySelector("[data-live-page]")) { pause.hidden = true; return; } // it has ended
    } catch {
      show("failed");
    }
    schedule();
  }

  function schedule() {
    clearTimeout(timer);
    const isPaused = pause.getAttribute("aria-pressed") === "true";
    if (!isPaused && document.visibilityState === "visible") timer = setTimeout(refresh, SECONDS * 1000);
  }

  pause.hidden = false;
  pause.setAttribute("aria-pressed", String(sessionStorage.getItem("systemtasks.paused") === "yes"));
  pause.addEventListener("click", () => {
    const isPaused = pause.getAttribute("aria-pressed") !== "true";
    pause.setAttribute("aria-pressed", String(isPaused));
    sessionStorage.setItem("systemtasks.paused", isPaused ? "yes" : "no");
    show("current");
    schedule();
  });
  document.addEventListener("visibilitychange", () => { schedule(); if (timer && document.visibilityState === "visible" && pause.getAttribute("aria-pressed") !== "true") refresh(); });
  schedule();
});
