// Sorting for every table; filters, search, pages, permalinks and CSV for grids, of which a page has
// one at most. All of it stands on DataTables; without scripts the tables are whole as they are.
"use strict";
(() => {
  const make = (tag, attributes = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };
  const text = (markup) => {
    if (!/[<&]/.test(markup)) return markup;
    const holder = document.createElement("template");
    holder.innerHTML = markup;
    return holder.content.textContent.replace(/\s+/g, " ").trim();
  };

  function themeButton() {
    const dark = () => {
      const chosen = document.documentElement.style.colorScheme;
      return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    };
    const button = make("button", { type: "button", className: "theme" });
    const say = () => { button.textContent = dark() ? "Light" : "Dark"; };
    button.setAttribute("aria-label", "Switch between light and dark");
    button.addEventListener("click", () => {
      const next = dark() ? "light" : "dark";
      document.documentElement.style.colorScheme = next;
      try { localStorage.setItem("iadd-theme", next); } catch { /* not kept, then */ }
      say();
    });
    say();
    document.querySelector("body > header").append(button);
  }

  const kinds = (heads) => heads.map((head) => (
    head.classList.contains("number") ? { type: "num", className: "number" }
      : head.classList.contains("wide") ? { orderable: false, searchable: false } : {}
  ));

  // A hash like #Method=mtt&ipc=10&search=x&sort=2-desc tells what is seen; others are anchors.
  const readHash = () => new URLSearchParams(
    location.hash.includes("=") ? location.hash.slice(1) : "",
  );

  function plain(table) {
    const heads = [...table.tHead.rows[0].cells];
    if (table.tBodies[0].rows.length < 2) return;
    new DataTable(table, {
      columns: kinds(heads), order: [], paging: false, searching: false, info: false,
      autoWidth: false,
    });
  }

  // A grid's table is the text of a <noscript>, its rows without end tags. Of ten thousand rows the
  // browser need not make elements then; what is seen is made of these strings. Beside the text of
  // a cell may stand what it is sorted by.
  function read(holder) {
    const [head, body] = holder.textContent.split("<tbody>");
    const box = holder.parentElement;
    box.innerHTML = `${head}<tbody></tbody></table>`;
    const rows = body.split("<tr").slice(1).map((row) => row.split(/<t[dh]/).slice(1).map((cell) => {
      const end = cell.indexOf(">");
      const order = /data-order="([^"]*)"/.exec(cell.slice(0, end));
      const shown = cell.slice(end + 1).replace(/<\/(?:tbody|table)>|\n/g, "");
      return order ? { shown, order: order[1] } : shown;
    }));
    return [box.querySelector("table"), rows];
  }
  const shown = (cell) => (typeof cell === "object" ? cell.shown : cell);
  // A rank like 3-17 is sorted by its first number, what is missing below every number.
  const ordered = (cell, kind) => {
    const value = typeof cell === "object" ? cell.order : cell;
    return kind.type === "num" ? Number.parseFloat(value) || (value.startsWith("0") ? 0 : "") : value;
  };

  function grid(holder) {
    const [table, rows] = read(holder);
    const heads = [...table.tHead.rows[0].cells];
    const names = heads.map((head) => head.textContent.trim());
    const box = table.closest(".card");
    const columns = kinds(heads).map((kind, place) => ({
      ...kind,
      render: (cell, use) => (use === "sort" || use === "type" ? ordered(cell, kind) : shown(cell)),
      ...(heads[place].classList.contains("head")
        ? { cellType: "th", createdCell: (cell) => cell.setAttribute("scope", "row") } : {}),
    }));
    const api = new DataTable(table, {
      data: rows, columns, order: [], pageLength: 50, autoWidth: false,
      layout: { topStart: null, topEnd: null, bottomStart: "info", bottomEnd: "paging" },
    });
    const panel = make("form", { className: "panel" });
    panel.setAttribute("role", "search");
    panel.setAttribute("aria-label", "What the table shows");
    panel.addEventListener("submit", (event) => event.preventDefault());
    const selects = new Map();
    heads.forEach((head, place) => {
      if (!("filter" in head.dataset)) return;
      const values = [...new Set(rows.map((row) => text(shown(row[place]))))];
      const numbers = values.every((value) => !Number.isNaN(Number(value)));
      values.sort(numbers ? (a, b) => a - b : undefined);
      if (values.length < 2) return;
      const select = make("select", {}, make("option", { value: "", textContent: "all" }));
      values.forEach((value) => select.append(make("option", { value, textContent: value })));
      panel.append(make("label", {}, names[place], select));
      selects.set(place, select);
    });
    const search = make("input", { type: "search" });
    panel.append(make("label", {}, "Search", search));
    const save = make("button", { type: "button", textContent: "Download what is seen (CSV)" });
    panel.append(save);
    box.before(panel);

    const exact = (value, place) => (value ? (_, row) => text(shown(row[place])) === value : null);
    const apply = () => {
      selects.forEach((select, place) => {
        api.column(place).search.fixed("chosen", exact(select.value, place));
      });
      api.search(search.value).draw();
    };
    const show = () => {  // what the address says
      const hash = readHash();
      selects.forEach((select, place) => { select.value = hash.get(names[place]) || ""; });
      search.value = hash.get("search") || "";
      const [place, way] = (hash.get("sort") || "").split("-");
      api.order(place in names && way ? [[Number(place), way]] : []);
      apply();
    };
    const remember = () => {  // into the address what is seen
      const hash = new URLSearchParams();
      selects.forEach((select, place) => { if (select.value) hash.set(names[place], select.value); });
      if (search.value) hash.set("search", search.value);
      const [first] = api.order();
      if (first && first[1]) hash.set("sort", `${first[0]}-${first[1]}`);
      const next = hash.toString();
      if (next !== readHash().toString()) history.replaceState(null, "", next ? `#${next}` : "#");
    };
    show();
    panel.addEventListener("input", () => { apply(); remember(); });
    api.on("order", remember);
    addEventListener("hashchange", () => { if (location.hash.includes("=") || !location.hash) show(); });
    save.addEventListener("click", () => {
      const seen = api.rows({ search: "applied", order: "applied" }).data().toArray();
      // A spreadsheet would compute what begins like a formula; numbers are let through.
      const inert = (value) => (/^[=+@\t\r-]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : value);
      const quoted = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
      const field = (value) => quoted(inert(value));
      const kept = heads.map((_, place) => place).filter((place) => !heads[place].matches(".wide"));
      const lines = [kept.map((place) => names[place])].concat(seen.map(
        (row) => kept.map((place) => text(shown(row[place]))),
      ));
      const csv = lines.map((line) => line.map(field).join(",")).join("\n");
      const address = URL.createObjectURL(new Blob([`${csv}\n`], { type: "text/csv" }));
      make("a", { href: address, download: `${table.id || "table"}.csv` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 1000);
    });
  }

  themeButton();
  const grids = document.querySelectorAll(".card > noscript");
  if (window.DataTable) {
    grids.forEach(grid);
    document.querySelectorAll("table.plain").forEach(plain);
  } else {
    grids.forEach((holder) => { holder.parentElement.innerHTML = holder.textContent; });
  }
  document.documentElement.classList.add("ready");
})();
