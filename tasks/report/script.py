"""The report's one script: it sorts tables and copies them as CSV. Everything else works without it.

The reports' server allows this text and no other, by its digest, so that nothing else that came into a page can run.
"""

import base64
import hashlib

SCRIPT = """
for (const table of document.querySelectorAll("table.data")) {
  const heads = [...[...table.tHead.rows].pop().cells];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const way = head.ariaSort === "ascending" ? -1 : 1;
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => [key(row.cells[place]), row]);
      rows.sort(([a], [b]) => a.missing - b.missing || way * (a.value - b.value || a.text.localeCompare(b.text)));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    };
  });
  if (!navigator.clipboard) continue;
  const copy = document.createElement("button");
  copy.textContent = "Copy";
  copy.onclick = () => navigator.clipboard.writeText(csv(table)).then(() => (copy.textContent = "Copied"));
  table.closest(".table").querySelector(".bar").append(copy);
}
function key(cell) {
  const text = (cell.firstChild || cell).textContent.replace("\\u2212", "-");
  const [, number, unit] = text.match(/^[<\\s]*([-+]?[\\d.]+)\\s*(kB|MB|M)?/) || [];
  const value = number ? number * ({ kB: 1e3, MB: 1e6, M: 1e6 }[unit] || 1) : 0;
  return { text, value, missing: /^(n\\/a|\\u2013|)$/.test(text) };
}
function csv(table) {
  const quoted = (text) => `"${text.replace(/\\s+/g, " ").trim().replace(/"/g, '""')}"`;
  const field = (cell) => [quoted(cell.innerText), ...Array(cell.colSpan - 1)];
  return [...table.rows].map((row) => [...row.cells].flatMap(field).join()).join("\\n");
}
"""
# What a Content-Security-Policy names it by.
SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'"
