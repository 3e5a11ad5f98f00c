"use strict";
// Rows are sorted by the column that is clicked, and hidden where the filters leave them out. Numbers by value, texts by letters.
const body = document.querySelector("#pages tbody");
const heads = [...document.querySelectorAll("#pages th")];
const rows = [...body.rows];
const search = document.getElementById("search"), status_ = document.getElementById("status");
let by = -1, down = false;

function key(row) {
  const cell = row.cells[by];
  return "v" in cell.dataset ? Number(cell.dataset.v) : cell.textContent;
}

function compare(a, b) {
  const [x, y] = [key(a), key(b)];
  if ((x === "") !== (y === "")) return x === "" ? 1 : -1; // without a value: last, both ways
  const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
  return down ? -order : order;
}

function sort(column) {
  down = by === column ? !down : false;
  by = column;
  rows.sort(compare);
  body.append(...rows);
  heads.forEach((head, i) => head.setAttribute("aria-sort", i !== by ? "none" : down ? "descending" : "ascending"));
}

function filter() {
  const words = search.value.trim().toLowerCase();
  let shown = 0;
  for (const row of rows) {
    row.hidden = !(row.textContent.toLowerCase().includes(words) && (!status_.value || row.cells[2].textContent === status_.value));
    shown += !row.hidden;
  }
  document.getElementById("count").textContent = `${shown} of ${rows.length}`;
}

heads.forEach((head, i) => head.firstChild.addEventListener("click", () => sort(i)));
search.addEventListener("input", filter);
status_.addEventListener("change", filter);
filter();
