// Conveniences only: everything can be read without this.
"use strict";
{
  const off = new Set();
  const apply = () => {
    for (const found of document.querySelectorAll("[data-target]")) {
      found.classList.toggle("off", off.has(found.dataset.target));
    }
    for (const chip of document.querySelectorAll("[data-chip]")) {
      chip.setAttribute("aria-pressed", String(!off.has(chip.dataset.chip)));
    }
  };
  const look = (name) => {
    document.body.classList.toggle("looking", Boolean(name));
    for (const found of document.querySelectorAll("g[data-target]")) {
      found.classList.toggle("looked", found.dataset.target === name);
    }
  };
  for (const chip of document.querySelectorAll("[data-chip]")) {
    const name = chip.dataset.chip;
    chip.addEventListener("click", () => {
      if (!off.delete(name)) off.add(name);
      apply();
    });
    chip.addEventListener("pointerenter", () => look(name));
    chip.addEventListener("pointerleave", () => look());
  }

  // The browser's own tooltips are slow, and absent on touch screens.
  const tip = document.getElementById("tip");
  for (const title of document.querySelectorAll("svg g > title")) {
    title.parentElement.dataset.tip = title.textContent;
    title.parentElement.setAttribute("aria-label", title.textContent);
    title.remove();
  }
  // Where marks lie on each other, all of them are meant.
  const show = (event) => {
    const under = document.elementsFromPoint(event.clientX, event.clientY);
    const found = new Set(under.map((one) => one.closest("[data-tip]")?.dataset.tip));
    found.delete(undefined);
    tip.hidden = found.size === 0;
    if (tip.hidden) return;
    tip.textContent = [...found].slice(0, 6).join("\n");
    const { width, height } = tip.getBoundingClientRect();
    const left = Math.max(8, Math.min(event.clientX + 14, innerWidth - width - 8));
    const above = event.clientY - height - 14;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 8 ? above : event.clientY + 18}px`;
  };
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
}
