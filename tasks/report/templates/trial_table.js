// The table of all visits: sorted by a heading, cut down by the filters.
const MEASURED = new Set(["T1 [ms]", "ECV [%]", "R²", "Hct [%]"]);
const COLUMNS = [
  ["Subject", (v) => v.subject], ["Visit", (v) => v.visit], ["Site", (v) => v.site],
  ["Planned", (v) => v.planned],
  ["Off plan", offPlan, (v) => offPlan(v) === null ? "–" : `${offPlan(v) > 0 ? "+" : offPlan(v) < 0 ? "−" : ""}${Math.abs(offPlan(v))} d`],
  ["State", (v) => placeIn(STATE_ORDER, v.state), (v) => make("span", { class: `mark ${v.state}` }, v.state)],
  ["QC", (v) => placeIn(VERDICT_ORDER, v.verdict),
    (v) => v.verdict ? make("span", { class: `mark ${v.verdict}` }, v.verdict) : ""],
  ["Why", (v) => v.reason, (v) => make("span", { class: "clamp", title: v.reason }, v.reason)],
  ["Scanner", (v) => v.scannerName, (v) => make("span", { class: "cut", title: v.scannerName }, v.scannerName)],
  ["T1 [ms]", (v) => v.t1, (v) => tell(v.t1, "", 0)],
  ["ECV [%]", (v) => v.ecv, (v) => v.ecv === null ? "–" : (100 * v.ecv).toFixed(1)],
  ["R²", (v) => v.r2, (v) => tell(v.r2, "", 3)],
  ["Hct [%]", (v) => v.hct, (v) => v.hct === null ? "–" : (100 * v.hct).toFixed(1)],
  ["Took [s]", (v) => v.total, (v) => tell(v.total, "", 1)],
].filter(([title]) => !(DATA.is_blinded && MEASURED.has(title)));
const STATE_ORDER = ["done", "flagged", "failed", "refused", "overdue", "waiting", "new", "unplanned"];
const VERDICT_ORDER = ["pass", "review", "fail"];
const placeIn = (order, value) => order.includes(value) ? order.indexOf(value) : null;
const FIRST_NUMBER = 9;
const table = document.getElementById("table");
const byText = new Intl.Collator("en", { numeric: true }).compare;
let sorting = { column: null, down: false };

// Days from the planned date to the scan.
function offPlan(visit) {
  if (!visit.planned || !visit.scanned) return null;
  return Math.round((Date.parse(visit.scanned.slice(0, 10)) - Date.parse(visit.planned)) / 86400e3);
}

function compare(a, b) {
  if (a === null || b === null || a === "" || b === "") return null;
  return typeof a === "number" ? a - b : byText(a, b);
}

function sortBy(column) {
  sorting = { column, down: sorting.column === column && !sorting.down };
  const value = COLUMNS[column][1];
  const isEmpty = (visit) => value(visit) === null || value(visit) === "";
  const order = [...VISITS].sort((a, b) => {
    // What has no value comes last, whichever way.
    if (isEmpty(a) || isEmpty(b)) return isEmpty(a) - isEmpty(b) || a.index - b.index;
    return (sorting.down ? -1 : 1) * compare(value(a), value(b)) || a.index - b.index;
  });
  table.tBodies[0].append(...order.map((visit) => visit.row));
  [...table.tHead.rows[0].cells].forEach((cell, index) => {
    if (index === column) cell.setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
}

function buildTable() {
  const headings = COLUMNS.map(([title], column) => {
    const button = make("button", { type: "button" }, title);
    button.addEventListener("click", () => sortBy(column));
    return make("th", { scope: "col", class: column >= FIRST_NUMBER ? "number" : null }, button);
  });
  table.tHead.append(make("tr", {}, ...headings));
  for (const visit of VISITS) {
    const cells = COLUMNS.map(([title, value, shown], column) => {
      let content = (shown ?? value)(visit) ?? "–";
      if (column < 2 && visit.page) content = make("a", { href: visit.page, tabindex: column ? -1 : null }, content);
      return make("td", { class: column >= FIRST_NUMBER ? "number" : title === "Why" ? "why" : column < 5 ? "few" : null }, content);
    });
    visit.row = make("tr", { id: rowId(visit) }, ...cells);
  }
  table.tBodies[0].append(...VISITS.map((visit) => visit.row));
  if (!VISITS.length) table.tBodies[0].append(make("tr", {}, make("td", { colspan: COLUMNS.length }, "No visit is planned.")));
  listeners.push(() => VISITS.forEach((visit) => { visit.row.hidden = !visit.shown; }));
}

function showRow(visit) {
  if (!visit.shown) resetFilters();
  table.querySelector(".here")?.classList.remove("here");
  visit.row.classList.add("here");
  visit.row.scrollIntoView({ block: "center" });
  visit.row.tabIndex = -1;
  visit.row.focus({ preventScroll: true });
}

buildTable();
