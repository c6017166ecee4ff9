// What the parts of the page share: the visits, small makers of elements, and how values are told.
const DATA = JSON.parse(document.getElementById("data").textContent);
const VISITS = DATA.visits;
VISITS.forEach((visit, index) => {
  visit.index = index;
  visit.name = `${visit.subject} ${visit.visit}`;
  visit.scannerName = visit.verdict ? `${visit.scanner ?? "scanner unnamed"}, ${visit.field ?? "field unknown"}` : "";
  const times = visit.seconds.filter((seconds) => seconds !== null);
  visit.total = times.length ? times.reduce((sum, seconds) => sum + seconds, 0) : null;
  visit.haystack = [visit.name, visit.site, visit.state, visit.verdict, visit.scannerName, visit.reason,
    ...Object.keys(visit.codes)].join(" ").toLowerCase();
  visit.shown = true;
});
const SVG = "http://www.w3.org/2000/svg";

function put(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// Text only ever enters as text nodes: what a site wrote is never read as markup.
const make = (tag, attributes, ...children) => put(document.createElement(tag), attributes, children);
const draw = (tag, attributes, ...children) => put(document.createElementNS(SVG, tag), attributes, children);
const rowId = (visit) => `visit-${visit.index}`;
const linkOf = (visit) => visit.page ?? `#${rowId(visit)}`;

function tell(value, unit, digits) {
  if (value === null || value === undefined) return "–";
  return (unit === "%" ? 100 * value : value).toFixed(digits) + (unit ? ` ${unit}` : "");
}

function describe(visit) {
  const verdict = visit.verdict ? `, QC ${visit.verdict}` : "";
  return `${visit.name}, site ${visit.site}: ${visit.state}${verdict}`;
}

function follow(visit) {
  if (visit.page) location.href = visit.page;
  else showRow(visit);
}

const listeners = [];
function redraw() { listeners.forEach((listener) => listener()); }
