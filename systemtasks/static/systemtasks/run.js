// What the page of a run does by itself: copying, the levels of the log, and the elapsed time.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const page = document.querySelector(".st-page");
  if (!page) return;
  const status = page.querySelector("[data-copied]");
  const menu = page.querySelector("[data-copy-menu]");
  const log = page.querySelector("[data-log]");
  const bar = page.querySelector("[data-logbar]");
  for (const part of [menu, bar]) if (part) part.hidden = false;

  async function copy(text) {
    try {
      if (navigator.clipboard) await navigator.clipboard.writeText(text);
      else copyWithout(text); // a page without TLS has no clipboard
      status.textContent = status.dataset.copied;
    } catch {
      status.textContent = status.dataset.failed;
    }
    setTimeout(() => { status.textContent = ""; }, 3000);
  }

  function copyWithout(text) {
    const field = document.createElement("textarea");
    field.value = text;
    field.className = "st-hidden";
    page.append(field);
    field.select();
    const isCopied = document.execCommand("copy");
    field.remove();
    if (!isCopied) throw new Error("copy");
  }

  const isShown = (line) => getComputedStyle(line).display !== "none";
  const text = (line, part) => line.querySelector(part)?.textContent.trim() ?? "";
  function asText(line) {
    const words = [line.querySelector("time")?.title, text(line, ".st-level"), text(line, ".st-logger"), text(line, ".st-event")];
    const attributes = [...line.querySelectorAll(".st-attribute")].map((one) => `${one.firstChild.textContent}=${one.lastChild.textContent}`);
    const blocks = [...line.querySelectorAll("pre")].map((block) => block.textContent);
    return [[...words, ...attributes].filter(Boolean).join(" "), ...blocks].join("\n");
  }

  page.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { copy: what, copyFrom, show } = button.dataset;
    if (what !== undefined) { await copy(what); if (menu) menu.open = false; }
    if (copyFrom !== undefined) {
      try { await copy(await (await fetch(copyFrom)).text()); } catch { status.textContent = status.dataset.failed; }
    }
    if (button.matches("[data-copy-log]")) await copy([...log.querySelectorAll(".st-line")].filter(isShown).map(asText).join("\n"));
    if (button.matches("[data-wrap]")) {
      const isWrapped = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(isWrapped));
      log.classList.toggle("st-unwrapped", !isWrapped);
    }
    if (show !== undefined) {
      log.dataset.log = show;
      for (const one of bar.querySelectorAll("[data-show]")) one.setAttribute("aria-pressed", String(one === button));
    }
  });

  // The elapsed time goes on between two refreshes, by the browser's clock from the server's number.
  const firstSeen = new WeakMap();
  function duration(seconds) {
    if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
    const whole = Math.round(seconds), two = (number) => String(number).padStart(2, "0");
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
    return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole % 3600 / 60))} min`;
  }
  if (page.querySelector("[data-elapsed]")) setInterval(() => {
    const field = page.querySelector("[data-elapsed]");
    if (!field) return;
    if (!firstSeen.has(field)) firstSeen.set(field, performance.now());
    field.textContent = duration(Number(field.dataset.elapsed) + (performance.now() - firstSeen.get(field)) / 1000);
  }, 1000);
});
