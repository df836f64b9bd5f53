"use strict";

// What a mark of a figure says, on hover, touch and focus. Without this script it is the browser's own title.
const tip = document.getElementById("tip");
const NEAR = 14; // in the figure's points

function hide() {
  tip.hidden = true;
  document.querySelectorAll(".marks .on").forEach((mark) => mark.classList.remove("on"));
}

function show(mark) {
  hide();
  mark.classList.add("on");
  tip.textContent = mark.getAttribute("aria-label");
  tip.hidden = false;
  const at = mark.getBoundingClientRect();
  const left = at.left + at.width / 2 - tip.offsetWidth / 2;
  const most = document.documentElement.clientWidth - tip.offsetWidth - 4;
  tip.style.left = `${Math.max(4, Math.min(left, most))}px`;
  const above = at.top - tip.offsetHeight - 6;
  tip.style.top = `${above < 4 ? at.bottom + 6 : above}px`;
}

for (const figure of document.querySelectorAll("svg.figure")) {
  const marks = [...figure.querySelectorAll(".marks circle")].map((element) => {
    const title = element.querySelector("title");
    element.setAttribute("aria-label", title.textContent);
    element.setAttribute("role", "img");
    element.setAttribute("tabindex", "-1");
    title.remove(); // else the browser shows it over ours
    return { element, x: +element.getAttribute("cx"), y: +element.getAttribute("cy"), line: element.dataset.line };
  });
  if (!marks.length) continue;
  const lines = [...new Set(marks.map((mark) => mark.line))];
  let here = marks[0]; // the one mark that Tab stops at
  here.element.setAttribute("tabindex", "0");

  const goTo = (mark) => {
    here.element.setAttribute("tabindex", "-1");
    here = mark;
    here.element.setAttribute("tabindex", "0");
    here.element.focus();
  };
  const along = (step) => {
    const own = marks.filter((mark) => mark.line === here.line);
    return own[Math.max(0, Math.min(own.length - 1, own.indexOf(here) + step))];
  };
  const across = (step) => {
    const next = lines[Math.max(0, Math.min(lines.length - 1, lines.indexOf(here.line) + step))];
    const own = marks.filter((mark) => mark.line === next);
    return own.reduce((one, other) => (Math.abs(other.x - here.x) < Math.abs(one.x - here.x) ? other : one));
  };
  const keys = {
    ArrowRight: () => along(1),
    ArrowLeft: () => along(-1),
    ArrowDown: () => across(1),
    ArrowUp: () => across(-1),
    Home: () => along(-Infinity),
    End: () => along(Infinity),
  };
  figure.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide();
    if (!keys[event.key] || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    goTo(keys[event.key]());
  });
  figure.addEventListener("focusin", (event) => show(event.target));
  figure.addEventListener("focusout", hide);

  const point = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(figure.getScreenCTM().inverse());
    const away = (mark) => Math.hypot(mark.x - at.x, mark.y - at.y);
    const nearest = marks.reduce((one, other) => (away(other) < away(one) ? other : one));
    if (away(nearest) < NEAR) show(nearest.element);
    else hide();
  };
  figure.addEventListener("pointermove", point);
  figure.addEventListener("pointerdown", point);
  figure.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
}
// A focus may scroll the page to its mark, after it was shown.
const again = () => (document.activeElement.matches(".marks circle") ? show(document.activeElement) : hide());
addEventListener("scroll", again, { passive: true, capture: true });
addEventListener("resize", again);

// Tables are sorted by a column's head: up, then down. What has no number stays last.
function key(cell, isNumber) {
  const words = cell.textContent.trim();
  if (!isNumber) return words;
  const number = parseFloat(words.replace(/^[[<]\s?/, ""));
  return words.startsWith("<") ? number * 0.999 : number;
}

function sort(table, head, place) {
  const isNumber = head.classList.contains("n");
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, key: key(row.cells[place], isNumber) }));
  const order = new Intl.Collator("en", { numeric: true }).compare;
  rows.sort((one, other) => {
    if (!isNumber) return sign * order(one.key, other.key);
    if (isNaN(one.key) || isNaN(other.key)) return isNaN(one.key) - isNaN(other.key);
    return sign * (one.key - other.key);
  });
  body.append(...rows.map((one) => one.row));
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
}

for (const table of document.querySelectorAll("table")) {
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sort(table, head, place));
  });
}

// What is folded is printed too.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
