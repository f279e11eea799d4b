// Sorting for every table, CSV for those with a name; filters, search, pages, permalinks and drawn
// intervals for grids, of which a page has one at most. All of it stands on DataTables; without
// scripts the tables are whole as they are.
"use strict";
(() => {
  const make = (tag, attributes = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };
  const text = (markup) => {  // of a cell, whose own angle brackets are escaped
    const bare = markup.includes("<") ? markup.replace(/<[^>]*>/g, "").replace(/\s+/g, " ").trim() : markup;
    if (!bare.includes("&")) return bare;
    const holder = document.createElement("template");
    holder.innerHTML = bare;
    return holder.content.textContent;
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
      : head.classList.contains("wide") ? { orderable: false, searchable: false }
        : head.classList.contains("text") ? { className: "text" } : {}
  ));

  // A spreadsheet would compute what begins like a formula; numbers are let through.
  const inert = (value) => (/^[=+@\t\r-]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : value);
  const quoted = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  function download(name, lines) {
    const csv = lines.map((line) => line.map((value) => quoted(inert(value))).join(",")).join("\n");
    const address = URL.createObjectURL(new Blob([`${csv}\n`], { type: "text/csv" }));
    make("a", { href: address, download: `${name || "table"}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  }
  const places = (heads) => heads.map((_, place) => place).filter(
    (place) => !heads[place].matches(".wide"),
  );

  // A hash like #Method=mtt&search=x&sort=Rank-desc tells what is seen; others are anchors.
  const readHash = () => new URLSearchParams(
    location.hash.includes("=") ? location.hash.slice(1) : "",
  );

  function plain(table) {
    const heads = [...table.tHead.rows[0].cells];
    if (table.id) {
      const save = make("button", { type: "button", className: "save", textContent: "CSV" });
      save.setAttribute("aria-label", `Download as CSV: ${table.caption.innerText}`);
      const said = (cell) => cell.textContent.replace(/\s+/g, " ").trim();
      save.addEventListener("click", () => download(table.id, [...table.rows].map(
        (row) => places(heads).map((place) => said(row.cells[place])),
      )));
      table.caption.firstElementChild.append(save);
    }
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
    const rows = body.split("<tr").slice(1).map((row) => {
      const [start, ...cells] = row.split(/<t[dh]/);
      const values = cells.map((cell) => {
        const end = cell.indexOf(">");
        const order = /data-order="([^"]*)"/.exec(cell.slice(0, end));
        const shown = cell.slice(end + 1).replace(/<\/(?:tbody|table)>|\n/g, "");
        return order ? { shown, order: order[1] } : shown;
      });
      values.kind = (/class="(\w+)"/.exec(start) || [])[1];
      return values;
    });
    return [box.querySelector("table"), rows];
  }
  const shown = (cell) => (typeof cell === "object" ? cell.shown : cell);
  // A rank like 3-17 is sorted by its first number, what is missing below every number.
  const number = (markup) => {
    const value = text(markup);
    return Number.parseFloat(value) || (value.startsWith("0") ? 0 : "");
  };
  const ordered = (cell, kind) => {
    const value = typeof cell === "object" ? cell.order : cell;
    return kind.type === "num" ? number(value) : text(value);
  };

  // A column that draws an interval from the numbers of its row, on a scale for what is seen.
  function drawn(table, heads) {
    const ends = ["low", "mean", "high"].map((end) => heads.findIndex((head) => head.dataset.end === end));
    if (ends.includes(-1)) return null;
    const values = (row) => ends.map((place) => number(shown(row[place])));
    const head = make("th", { className: "wide", scope: "col" });
    const scale = (rows) => {
      const known = rows.flatMap(values).filter((value) => value !== "");
      const first = 5 * Math.floor(known.reduce((a, b) => Math.min(a, b), 100) / 5);
      const last = Math.max(5 * Math.ceil(known.reduce((a, b) => Math.max(a, b), 0) / 5), first + 5);
      table.style.setProperty("--first", first);
      table.style.setProperty("--span", last - first);
      head.textContent = `${first} to ${last} %`;
    };
    const render = (_, use, row) => {
      if (use !== "display") return "";
      const [low, mean, high] = values(row);
      const bar = low === "" || high === "" ? "" : `<i style="--a:${low};--b:${high}"></i>`;
      const dot = mean === "" ? "" : `<b style="--a:${mean}"></b>`;
      return `<span class="track" aria-hidden="true">${bar}${dot}</span>`;
    };
    return { head, after: heads[Math.max(...ends)], scale, render };
  }

  function grid(holder) {
    const [table, rows] = read(holder);
    const heads = [...table.tHead.rows[0].cells];
    const names = heads.map((head) => head.textContent.replace(/\s+/g, " ").trim());
    const box = table.closest(".card");
    const alike = JSON.parse(table.dataset.alike || "[]");
    const columns = kinds(heads).map((kind, place) => ({
      ...kind,
      data: place,
      render: (cell, use) => {
        if (use === "display") return shown(cell);
        return use === "filter" ? text(shown(cell)) : ordered(cell, kind);
      },
      ...(heads[place].classList.contains("head")
        ? { cellType: "th", createdCell: (cell) => cell.setAttribute("scope", "row") } : {}),
    }));
    const picture = drawn(table, heads);
    if (picture) {
      picture.after.after(picture.head);
      columns.splice(heads.indexOf(picture.after) + 1, 0, {
        data: null, orderable: false, searchable: false, className: "wide", render: picture.render,
      });
    }
    const column = (place) => place + (picture && place > heads.indexOf(picture.after) ? 1 : 0);
    const api = new DataTable(table, {
      data: rows, columns, order: [], pageLength: 50, autoWidth: false,
      createdRow: (row, values) => { if (values.kind) row.classList.add(values.kind); },
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
      values.sort(new Intl.Collator("en", { numeric: true }).compare);
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
        api.column(column(place)).search.fixed("chosen", exact(select.value, place));
      });
      api.search(search.value).draw();
      if (picture) picture.scale(api.rows({ search: "applied" }).data().toArray());
    };
    const show = () => {  // what the address says
      const hash = readHash();
      selects.forEach((select, place) => { select.value = hash.get(names[place]) || ""; });
      search.value = hash.get("search") || "";
      const [, name, way] = /^(.*)-(asc|desc)$/.exec(hash.get("sort") || "") || [];
      api.order(names.includes(name) ? [[column(names.indexOf(name)), way]] : []);
      apply();
    };
    const remember = () => {  // into the address what is seen
      const hash = new URLSearchParams();
      selects.forEach((select, place) => { if (select.value) hash.set(names[place], select.value); });
      if (search.value) hash.set("search", search.value);
      const [first] = api.order();
      if (first && first[1]) {
        const name = names.find((_, place) => column(place) === first[0]);
        hash.set("sort", `${name}-${first[1]}`);
      }
      const next = hash.toString();
      if (next !== readHash().toString()) history.replaceState(null, "", next ? `#${next}` : "#");
    };
    show();
    panel.addEventListener("input", () => { apply(); remember(); });
    api.on("order", remember);
    addEventListener("hashchange", () => { if (location.hash.includes("=") || !location.hash) show(); });
    save.addEventListener("click", () => {
      const seen = api.rows({ search: "applied", order: "applied" }).data().toArray();
      const kept = places(heads);
      const every = alike.map(([, value]) => value);
      const lines = seen.map((row) => [...kept.map((place) => text(shown(row[place]))), ...every]);
      const titles = [...kept.map((place) => names[place]), ...alike.map(([name]) => name)];
      download(table.id, [titles, ...lines]);
    });
  }

  // Says that a table goes on to the right, as long as there is anything to scroll to.
  function tellCut(region) {
    const tell = () => {
      const hidden = region.scrollWidth - region.clientWidth - region.scrollLeft;
      region.classList.toggle("cut", hidden > 4);
    };
    region.addEventListener("scroll", tell, { passive: true });
    new ResizeObserver(tell).observe(region);
    tell();
  }

  themeButton();
  const grids = document.querySelectorAll(".card > noscript");
  if (window.DataTable) {
    grids.forEach(grid);
    document.querySelectorAll("table.plain").forEach(plain);
  } else {
    grids.forEach((holder) => { holder.parentElement.innerHTML = holder.textContent; });
  }
  document.querySelectorAll(".scroll").forEach(tellCut);
  document.documentElement.classList.add("ready");
})();
