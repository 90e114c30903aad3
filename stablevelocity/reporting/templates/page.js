// Sorts a table by the column whose heading is pressed; opens what a link leads to, and what a print needs.
"use strict";
const digits = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const value = (cell) => {
  const text = cell.textContent.trim().replaceAll("−", "-").replaceAll(",", "");
  const [, power] = text.match(/ × 10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)/) ?? [];
  const exponent = power ? Number([...power].map((c) => (c === "⁻" ? "-" : digits.indexOf(c))).join("")) : 0;
  const number = parseFloat(text);
  return Number.isNaN(number) ? (cell.matches("th, .word") ? text : null) : number * 10 ** exponent;
};
const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
const sort = (heading) => {
  const rows = heading.closest("table").tBodies[0];
  const sign = heading.ariaSort === "ascending" ? -1 : 1;
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  heading.ariaSort = sign === 1 ? "ascending" : "descending";
  const keyed = [...rows.rows].map((row) => [value(row.cells[heading.cellIndex]), row]);
  // What is not known stands last in either order.
  keyed.sort(([a], [b]) => (a === null ? 1 : 0) - (b === null ? 1 : 0) || (a === null ? 0 : sign * order(a, b)));
  rows.append(...keyed.map(([, row]) => row));
};
for (const heading of document.querySelectorAll("table.sortable thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...heading.childNodes);
  button.onclick = () => sort(heading);
  heading.append(button);
}
const opened = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (const part of [target, ...target.querySelectorAll(":scope details.own")]) if (part.matches("details")) part.open = true;
  for (let part = target; part; part = part.parentElement) if (part.matches("details")) part.open = true;
  target.scrollIntoView();
};
addEventListener("hashchange", opened);
addEventListener("load", opened);
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll(".claims details, details.how, #papers details")) part.open = true;
});
