// Sorting for every table; filters, search, pages, permalinks and CSV for the one that is a grid.
// All of it stands on DataTables; without scripts the tables are whole as they are.
"use strict";
(() => {
  const make = (tag, attributes = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };
  const text = (markup) => {
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

  function grid(table) {
    const heads = [...table.tHead.rows[0].cells];
    const names = heads.map((head) => head.textContent.trim());
    const box = table.closest(".card");
    const api = new DataTable(table, {
      columns: kinds(heads), order: [], paging: true, pageLength: 50, autoWidth: false,
      layout: { topStart: null, topEnd: null, bottomStart: "info", bottomEnd: "paging" },
    });
    const panel = make("form", { className: "panel" });
    panel.setAttribute("role", "search");
    panel.setAttribute("aria-label", "What the table shows");
    panel.addEventListener("submit", (event) => event.preventDefault());
    const selects = new Map();
    heads.forEach((head, place) => {
      if (!("filter" in head.dataset)) return;
      const values = [...new Set(api.column(place).data().toArray().map(text))];
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

    const exact = (value) => (value ? (cell) => text(cell) === value : "");
    const apply = () => {
      selects.forEach((select, place) => api.column(place).search.fixed("chosen", exact(select.value)));
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
      const field = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
      const kept = heads.map((_, place) => place).filter((place) => !heads[place].matches(".wide"));
      const lines = [kept.map((place) => names[place])].concat(seen.map(
        (row) => kept.map((place) => text(row[place].display ?? row[place])),
      ));
      const csv = lines.map((line) => line.map(field).join(",")).join("\n");
      const address = URL.createObjectURL(new Blob([`${csv}\n`], { type: "text/csv" }));
      make("a", { href: address, download: `${table.id || "table"}.csv` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 1000);
    });
  }

  themeButton();
  if (window.DataTable) {
    document.querySelectorAll("table.grid").forEach(grid);
    document.querySelectorAll("table.plain").forEach(plain);
  }
  document.documentElement.classList.add("ready");
})();
