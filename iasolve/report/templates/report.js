"use strict";
for (const look of document.querySelectorAll(".look")) {
  const stage = look.querySelector(".stage");
  look.querySelector(".slide")?.addEventListener("input", (event) => stage.style.setProperty("--at", event.target.value + "%"));
  look.querySelector(".fade")?.addEventListener("input", (event) => stage.style.setProperty("--fade", event.target.value / 100));
}

function sort(table, column, heading) {
  const descending = heading.getAttribute("aria-sort") !== "descending";
  const number = heading.dataset.kind === "number";
  const rows = [...table.tBodies[0].rows];
  const value = (row) => row.cells[column].dataset.value;
  rows.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === "");  // unknown values last, either way
    const order = number ? Number(x) - Number(y) : x.localeCompare(y);
    return descending ? -order : order;
  });
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  table.tBodies[0].append(...rows);
}

const overview = document.getElementById("overview");
if (overview) {
  [...overview.tHead.rows[0].cells].forEach((heading, column) =>
    heading.querySelector("button").addEventListener("click", () => sort(overview, column, heading)));
}

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const text = button.nextElementSibling;
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {  // a page from a file may not use the clipboard: select, so that Ctrl-C does it
      getSelection().selectAllChildren(text);
      button.textContent = "Selected: press Ctrl-C";
    }
  });
}
