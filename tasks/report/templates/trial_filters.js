// The filters: selects, the search, and every count or name on the page that filters by it.
const form = document.getElementById("filters");
const FIELDS = {
  state: (visit) => [visit.state], verdict: (visit) => [visit.verdict ?? "none"], site: (visit) => [visit.site],
  scanner: (visit) => visit.scannerName ? [visit.scannerName] : [], code: (visit) => Object.keys(visit.codes),
};
const selectOf = (field) => document.getElementById(field);

function fillSelects() {
  for (const [field, values] of Object.entries(FIELDS)) {
    const counts = new Map();
    VISITS.forEach((visit) => values(visit).forEach((value) => counts.set(value, (counts.get(value) ?? 0) + 1)));
    const order = field === "state" ? STATE_ORDER : field === "verdict" ? [...VERDICT_ORDER, "none"] : null;
    const found = [...counts.keys()].sort((a, b) => order ? order.indexOf(a) - order.indexOf(b) : byText(a, b));
    const options = found.map((value) => make("option", { value }, `${value} (${counts.get(value)})`));
    selectOf(field).append(make("option", { value: "" }, "all"), ...options);
  }
}

function applyFilters() {
  const words = selectOf("text").value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = Object.keys(FIELDS).filter((field) => selectOf(field).value !== "");
  let n = 0;
  for (const visit of VISITS) {
    visit.shown = words.every((word) => visit.haystack.includes(word)) &&
      chosen.every((field) => FIELDS[field](visit).includes(selectOf(field).value));
    n += visit.shown;
  }
  Object.keys(FIELDS).forEach((field) => selectOf(field).classList.toggle("on", chosen.includes(field)));
  selectOf("text").classList.toggle("on", words.length > 0);
  document.querySelectorAll(".tile").forEach((tile) => {
    tile.setAttribute("aria-pressed", String(selectOf(tile.dataset.filter).value === tile.dataset.value));
  });
  document.getElementById("shown").textContent = `${n} of ${VISITS.length} visits`;
  redraw();
}

function resetFilters() {
  Object.keys(FIELDS).forEach((field) => { selectOf(field).value = ""; });
  selectOf("text").value = "";
  applyFilters();
}

document.querySelectorAll("[data-filter]").forEach((button) => button.addEventListener("click", () => {
  const select = selectOf(button.dataset.filter);
  select.value = select.value === button.dataset.value ? "" : button.dataset.value;
  applyFilters();
}));
document.querySelectorAll("[data-visit]").forEach((link) => link.addEventListener("click", (event) => {
  const visit = VISITS.find((one) => `${one.subject}/${one.visit}` === link.dataset.visit);
  event.preventDefault();
  showRow(visit);
}));
form.addEventListener("input", applyFilters);
form.addEventListener("reset", (event) => { event.preventDefault(); resetFilters(); });
form.addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) {
    event.preventDefault();
    selectOf("text").focus();
  }
});
fillSelects();
applyFilters();
