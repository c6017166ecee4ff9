// Subjects by visits: as many tables side by side as the page is wide, one focus stop, arrow keys inside.
const heat = document.getElementById("heat");
const mapped = VISITS.filter((visit) => visit.state !== "unplanned");
const subjects = [...new Set(mapped.map((visit) => visit.subject))];
const visitIds = orderedVisits();
const cellAt = new Map(mapped.map((visit) => [`${visit.subject}\n${visit.visit}`, visit]));

function orderedVisits() {
  // By their mean place within the subjects, which are in order of dates.
  const places = new Map();
  const seen = new Map();
  for (const visit of mapped) {
    const place = seen.get(visit.subject) ?? 0;
    seen.set(visit.subject, place + 1);
    const sums = places.get(visit.visit) ?? [0, 0];
    places.set(visit.visit, [sums[0] + place, sums[1] + 1]);
  }
  const mean = (id) => places.get(id)[0] / places.get(id)[1];
  return [...places.keys()].sort((a, b) => mean(a) - mean(b) || byText(a, b));
}

function buildHeat() {
  if (!subjects.length) return;
  const longest = Math.max(...subjects.map((subject) => subject.length));
  const upright = visitIds.some((id) => id.length > 4);
  const width = 33 * visitIds.length + Math.min(176, 7 * longest + 12) + 26;
  const across = Math.max(1, Math.floor((heat.clientWidth + 26) / width));
  const height = Math.max(10, Math.ceil(subjects.length / across));
  heat.replaceChildren();
  for (let start = 0; start < subjects.length; start += height) {
    const heads = visitIds.map((id) => make("th", { scope: "col", title: id }, upright ? make("span", { class: "up" }, id) : id));
    const rows = subjects.slice(start, start + height).map((subject) => {
      const cells = visitIds.map((id) => {
        const visit = cellAt.get(`${subject}\n${id}`);
        if (!visit) return make("td", {});
        const label = describe(visit) + (visit.reason ? `: ${visit.reason}` : "") + (visit.page ? "" : " (no page)");
        visit.cell ??= make("a", { class: `cell o ${visit.outcome}`, href: linkOf(visit), title: label, "aria-label": label, tabindex: -1 });
        return make("td", {}, visit.cell);
      });
      return make("tr", {}, make("th", { scope: "row", title: subject }, subject), ...cells);
    });
    heat.append(make("table", {}, make("thead", {}, make("tr", {}, make("td", {}), ...heads)), make("tbody", {}, ...rows)));
  }
}

function step(visit, key) {
  let row = subjects.indexOf(visit.subject);
  let column = visitIds.indexOf(visit.visit);
  const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1], Home: [0, -1e9], End: [0, 1e9] }[key];
  if (Math.abs(right) > 1) {
    const own = visitIds.map((id) => cellAt.get(`${visit.subject}\n${id}`)).filter(Boolean);
    return right < 0 ? own[0] : own[own.length - 1];
  }
  for (;;) {
    row += down;
    column += right;
    if (column < 0 || column >= visitIds.length) { row += right; column = right > 0 ? 0 : visitIds.length - 1; }
    if (row < 0 || row >= subjects.length) return visit;
    const found = cellAt.get(`${subjects[row]}\n${visitIds[column]}`);
    if (found) return found;
  }
}

const visitOfCell = (target) => mapped.find((visit) => visit.cell === target);
heat.addEventListener("keydown", (event) => {
  const visit = visitOfCell(event.target);
  if (!visit || !["ArrowDown", "ArrowUp", "ArrowRight", "ArrowLeft", "Home", "End"].includes(event.key)) return;
  event.preventDefault();
  const next = step(visit, event.key);
  visit.cell.tabIndex = -1;
  next.cell.tabIndex = 0;
  next.cell.focus();
});
heat.addEventListener("click", (event) => {
  const visit = visitOfCell(event.target);
  if (!visit) return;
  mapped.forEach((other) => { other.cell.tabIndex = -1; });
  visit.cell.tabIndex = 0;
  if (!visit.page) { event.preventDefault(); showRow(visit); }
});

buildHeat();
if (mapped.length) mapped[0].cell.tabIndex = 0;
let heatWidth = heat.clientWidth;
window.addEventListener("resize", () => {
  if (heat.clientWidth !== heatWidth) { heatWidth = heat.clientWidth; buildHeat(); }
});
listeners.push(() => mapped.forEach((visit) => visit.cell.classList.toggle("dim", !visit.shown)));
