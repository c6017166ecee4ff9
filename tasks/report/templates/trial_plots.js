// Plots: one path for all ordinary dots of a panel, a link for each one that matters.
const tip = document.getElementById("tip");
const DAY_MS = 86400e3;
const dayOf = (text) => Date.parse(text.length > 10 ? `${text}Z` : text) / DAY_MS;

function ticks(low, high, wanted) {
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const size = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((one) => one >= rough);
  const found = [];
  for (let at = Math.ceil(low / size) * size; at <= high + size * 1e-6; at += size) found.push(Number(at.toPrecision(10)));
  return found;
}

function spread(values, share) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const more = (high - low || Math.abs(high) * 0.1 || 1) * share;
  return [low - more, high + more];
}

// A frame with a y axis; x positions are the caller's. Points are what the mouse finds.
function frame(host, { title, y, height = 230, label, digits = 0, scale = 1, left = 44, bottom = 22 }) {
  const width = host.classList.contains("three") ? 420 : 640;
  const area = { left, right: width - 8, top: 8, bottom: height - bottom };
  const svg = draw("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
  const sy = (value) => area.bottom - (area.bottom - area.top) * (value - y[0]) / (y[1] - y[0]);
  const marks = ticks(y[0] * scale, y[1] * scale, 5);
  const enough = Math.max(digits, ...marks.map((mark) => (String(mark).split(".")[1] ?? "").length));
  for (const mark of marks) {
    const at = sy(mark / scale);
    svg.append(draw("line", { class: "tick", x1: area.left, x2: area.right, y1: at, y2: at }),
      draw("text", { x: area.left - 6, y: at + 4, "text-anchor": "end" }, mark.toFixed(enough)));
  }
  svg.append(draw("path", { class: "axis", d: `M${area.left} ${area.top}V${area.bottom}H${area.right}` }));
  const caption = make("figcaption");
  host.append(make("figure", {}, make("h3", {}, title), svg, caption));
  const plot = { svg, width, area, sy, caption, points: [] };
  listen(plot);
  return plot;
}

function listen(plot) {
  const nearest = (event) => {
    const box = plot.svg.getBoundingClientRect();
    const zoom = plot.width / box.width;
    const [x, y] = [(event.clientX - box.left) * zoom, (event.clientY - box.top) * zoom];
    let best = null;
    let least = 9 ** 2;
    for (const point of plot.points) {
      const apart = (point.x - x) ** 2 + (point.y - y) ** 2;
      if (apart < least && point.visit.shown) { best = point; least = apart; }
    }
    return best;
  };
  plot.svg.addEventListener("mousemove", (event) => {
    const point = nearest(event);
    tip.hidden = !point;
    plot.svg.style.cursor = point ? "pointer" : "";
    if (!point) return;
    tip.textContent = `${point.visit.name}, site ${point.visit.site}\n${point.text}`;
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - 240)}px`;
    tip.style.top = `${event.clientY + 14}px`;
  });
  plot.svg.addEventListener("mouseleave", () => { tip.hidden = true; });
  plot.svg.addEventListener("click", (event) => {
    const point = nearest(event);
    if (point && !event.target.closest("a")) follow(point.visit);
  });
}

const dotPath = (points) => points.map(({ x, y }) => `M${x.toFixed(1)} ${y.toFixed(1)}h0`).join("");
const crossPath = (points) => points.map(({ x, y }) => `M${(x - 3).toFixed(1)} ${(y - 3).toFixed(1)}l6 6m-6 0l6 -6`).join("");

// Ordinary dots, and crosses for scans that failed QC; those that the filters leave out are pale.
function dots(plot, points) {
  const paths = ["dots out", "crosses out", "dots", "crosses"].map((name) => draw("path", { class: name }));
  plot.svg.append(...paths);
  plot.points.push(...points);
  const plain = points.filter((point) => !point.link);
  listeners.push(() => paths.forEach((path, index) => {
    const failed = index % 2 === 1;
    const found = plain.filter(({ visit }) => visit.shown === index > 1 && (visit.verdict === "fail") === failed);
    path.setAttribute("d", failed ? crossPath(found) : dotPath(found));
  }));
  for (const point of points.filter((one) => one.link)) plot.svg.append(diamond(point, point.link));
}

function diamond({ x, y, visit, text }, kind) {
  const link = draw("a", { href: linkOf(visit), class: `diamond ${kind}`, "aria-label": `${visit.name}: ${text}` },
    draw("path", { d: `M${x.toFixed(1)} ${(y - 5.5).toFixed(1)}l5.5 5.5l-5.5 5.5l-5.5 -5.5z` }));
  link.addEventListener("click", (event) => { if (!visit.page) { event.preventDefault(); showRow(visit); } });
  listeners.push(() => link.classList.toggle("out", !visit.shown));
  return link;
}

// Names some visits as links, the first of them in sight.
function linkList(caption, text, found, tellOne) {
  const links = found.slice(0, 6).flatMap((visit, index) => {
    const link = make("a", { href: linkOf(visit) }, visit.name);
    link.addEventListener("click", (event) => { if (!visit.page) { event.preventDefault(); showRow(visit); } });
    return [index ? ", " : "", link, ` ${tellOne(visit)}`];
  });
  caption.append(text, ...links, found.length > 6 ? ` and ${found.length - 6} more` : "");
}

// Spreads dots of like height sideways, so that their width shows how many there are.
function swarm(items, center, room) {
  const bins = new Map();
  for (const item of items) {
    const bin = Math.round(item.y / 4.5);
    bins.set(bin, [...(bins.get(bin) ?? []), item]);
  }
  for (const members of bins.values()) {
    const pace = Math.min(5, 2 * room / members.length);
    members.forEach((item, index) => { item.x = center + Math.ceil(index / 2) * (index % 2 ? 1 : -1) * pace; });
  }
}

function strip(host, metric, groups, options = {}) {
  const all = groups.flatMap((group) => [...group.values, ...(group.limits ?? [])]);
  const scale = metric.unit === "%" ? 100 : 1;
  const title = metric.unit ? `${metric.title} [${metric.unit}]` : metric.title;
  const plot = frame(host, { title, y: spread(all, 0.05), label: metric.title, scale, ...options });
  const width = (plot.area.right - plot.area.left) / groups.length;
  groups.forEach((group, place) => {
    const center = plot.area.left + width * (place + 0.5);
    const reach = Math.min(width * 0.46, 150);
    for (const limit of group.limits ?? []) {
      plot.svg.append(draw("line", { class: "limit", x1: center - reach, x2: center + reach, y1: plot.sy(limit), y2: plot.sy(limit) }));
    }
    plot.svg.append(draw("text", { class: "strong", x: center, y: plot.area.bottom + 16, "text-anchor": "middle" },
      `${group.name}, n ${group.values.length}`));
    const outliers = new Set(group.outliers ?? []);
    const points = group.scans.map((index, rank) => ({
      visit: VISITS[index], y: plot.sy(group.values[rank]), link: outliers.has(index) ? "outlier" : null,
      text: `${metric.title} ${tell(group.values[rank], metric.unit, metric.digits)}`,
    }));
    swarm(points, center, reach);
    dots(plot, points);
    plot.svg.append(draw("line", { class: "middle", x1: center - reach, x2: center + reach, y1: plot.sy(group.median), y2: plot.sy(group.median) }));
  });
  return plot;
}

function showDistributions() {
  const host = document.getElementById("plots-distributions");
  for (const metric of DATA.distributions) {
    if (!metric.groups.length) {
      host.append(make("figure", {}, make("h3", {}, metric.title), make("p", { class: "soft" }, "No scan has a value yet.")));
      continue;
    }
    const groups = metric.groups.map((group) => ({ ...group, values: group.scans.map((index) => VISITS[index][metric.name]) }));
    const plot = strip(host, metric, groups);
    groups.forEach((group, place) => {
      const line = make("div");
      plot.caption.append(line);
      const median = `${group.name}: median ${tell(group.median, metric.unit, metric.digits)}`;
      if (!group.limits) line.append(`${median}; too few or too equal for limits.`);
      else if (!group.outliers.length) line.append(`${median}, no outlier.`);
      else {
        const found = group.outliers.map((index) => VISITS[index]);
        linkList(line, `${median}, ${found.length} outlier${found.length > 1 ? "s" : ""}: `, found,
          (visit) => tell(visit[metric.name], metric.unit === "%" ? "%" : "", metric.digits));
      }
    });
  }
}

function dateAxis(plot, first, last, sx) {
  const months = Math.max(1, Math.ceil((last - first) / 30.4 / 6));
  const start = new Date(first * DAY_MS);
  for (let month = start.getUTCMonth() + 1; ; month += months) {
    const at = Date.UTC(start.getUTCFullYear(), month, 1);
    if (at / DAY_MS > last) break;
    plot.svg.append(draw("text", { x: sx(at / DAY_MS), y: plot.area.bottom + 16, "text-anchor": "middle" },
      new Date(at).toISOString().slice(0, 7)));
  }
}

function showDrift() {
  const host = document.getElementById("plots-drift");
  if (!host) return;
  if (!DATA.drift.length) host.append(make("p", {}, "No scan with blood T1 and a date yet."));
  const all = DATA.drift.flatMap((one) => one.scans.map((index) => dayOf(VISITS[index].scanned)));
  const [first, last] = all.length ? spread(all, 0.03) : [0, 1];
  for (const one of DATA.drift) {
    const alike = DATA.drift.filter((other) => other.field === one.field).flatMap((other) => other.scans);
    const y = spread(alike.map((index) => VISITS[index].blood), 0.05);
    const title = `Site ${one.site}: ${one.scanner}, ${one.field}`;
    const plot = frame(host, { title, y, label: `Blood T1 over time, ${title}`, height: 190 });
    const sx = (day) => plot.area.left + (plot.area.right - plot.area.left) * (day - first) / (last - first);
    dateAxis(plot, first, last, sx);
    dots(plot, one.scans.map((index) => ({
      visit: VISITS[index], x: sx(dayOf(VISITS[index].scanned)), y: plot.sy(VISITS[index].blood),
      text: `${VISITS[index].scanned.slice(0, 10)}: blood T1 ${tell(VISITS[index].blood, "ms", 0)}`,
    })));
    const trend = one.trend;
    if (!trend) { plot.caption.append(`${one.scans.length} scan${one.scans.length > 1 ? "s" : ""}, too few or too short for a trend.`); continue; }
    const days = one.scans.filter((index) => VISITS[index].verdict !== "fail").map((index) => dayOf(VISITS[index].scanned));
    plot.svg.append(draw("line", { class: "trend", x1: sx(Math.min(...days)), x2: sx(Math.max(...days)), y1: plot.sy(trend.from), y2: plot.sy(trend.to) }));
    const signed = (value) => (value > 0 ? "+" : "−") + Math.abs(value).toFixed(0);
    const text = `${signed(trend.slope)} ms a year (99 % ${signed(trend.low)} to ${signed(trend.high)}), ${one.scans.length} scans`;
    plot.caption.append(make("span", { class: trend.low > 0 || trend.high < 0 ? "drifts" : null }, text));
  }
}

function showChanges() {
  const host = document.getElementById("plots-changes");
  const kind = document.querySelector("input[name=view]:checked").value;
  host.replaceChildren();
  if (DATA.changes.every((panel) => !panel.points.length)) {
    host.append(make("p", {}, "No subject has two visits that can be compared yet."));
    return;
  }
  const months = DATA.changes.flatMap((panel) => panel.points.map((point) => point[2] / 30.44));
  const last = Math.max(1, ...months) * 1.03;
  for (const panel of DATA.changes) if (panel.points.length) changePanel(host, panel, kind === "change", last);
}

function changePanel(host, panel, isChange, last) {
  const { points, unit } = panel;
  const digits = unit === "%" ? 1 : 0;
  const scale = unit === "%" ? 100 : 1;
  const valueOf = (index) => VISITS[index][panel.value];
  const heights = isChange ? [0, ...points.map((point) => point[3]), ...(panel.repeatability ?? []).flatMap((one) => [one, -one])]
    : points.flatMap((point) => [valueOf(point[0]), valueOf(point[1])]).filter((value) => value !== null);
  if (!heights.length) return;
  const title = isChange ? `${panel.title}, change [${unit === "%" ? "% ECV, absolute" : unit}]` : `${panel.title} [${unit}]`;
  const plot = frame(host, { title, y: spread(heights, 0.06), label: title, scale, height: 280 });
  const sx = (days) => plot.area.left + (plot.area.right - plot.area.left) * (days / 30.44) / last;
  for (const month of ticks(0, last, 7)) {
    plot.svg.append(draw("text", { x: sx(month * 30.44), y: plot.area.bottom + 16, "text-anchor": "middle" }, `${month} mo`));
  }
  if (isChange && panel.repeatability) band(plot, panel.repeatability);
  const paths = ["thread out", "thread odd", "thread", "thread found"].map((name) => draw("path", { class: name }));
  plot.svg.append(...paths);
  const threads = new Map();
  for (const point of points) threads.set(point[1], [...(threads.get(point[1]) ?? []), point]);
  const lines = [...threads].map(([first, members]) => {
    const start = isChange ? 0 : valueOf(first);
    const ways = members.sort((a, b) => a[2] - b[2]).map(([now, , days, change]) => [sx(days), plot.sy(isChange ? change : valueOf(now) ?? NaN)]);
    const all = [[sx(0), plot.sy(start ?? NaN)], ...ways].filter((place) => Number.isFinite(place[1]));
    const rank = members.some((point) => point[5]) ? 3 : members.some((point) => point[5] === null) ? 1 : 2;
    return { visit: VISITS[first], rank, d: all.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("") };
  });
  const subjectShown = ({ visit }) => VISITS.some((one) => one.subject === visit.subject && one.shown);
  listeners.push(() => {
    const shown = new Map(lines.map((line) => [line, subjectShown(line)]));
    paths.forEach((path, rank) => path.setAttribute("d", lines.filter((line) => (shown.get(line) ? line.rank : 0) === rank).map((line) => line.d).join("")));
  });
  const told = points.map(([now, , days, change, , beyond]) => ({
    visit: VISITS[now], x: sx(days), y: plot.sy(isChange ? change : valueOf(now) ?? NaN), change,
    link: beyond ? "found" : null, text: `${change > 0 ? "+" : "−"}${tell(Math.abs(change), unit, digits)} since the first visit`,
  })).filter((point) => Number.isFinite(point.y));
  plot.points.push(...told);
  const found = told.filter((point) => point.link).sort((a, b) => Math.abs(b.change) - Math.abs(a.change));
  found.forEach((point) => plot.svg.append(diamond(point, "found")));
  const [low, high] = panel.repeatability ?? [null, null];
  const band_text = low === null ? "Repeatability is not known. " :
    `Repeatability ±${tell(low, unit, digits)}${high > low ? ` to ${tell(high, unit, digits)}, as visits were published with different ones` : ""}. `;
  const text = found.length ? `${found.length} of ${points.length} changes beyond it: ` : `None of ${points.length} changes is beyond it.`;
  const changeOf = new Map(found.map((point) => [point.visit, point.change]));
  linkList(plot.caption, band_text + text, found.map((point) => point.visit),
    (visit) => `${changeOf.get(visit) > 0 ? "+" : "−"}${tell(Math.abs(changeOf.get(visit)), unit === "%" ? "%" : "", digits)}`);
}

function band(plot, [low, high]) {
  const { left, right } = plot.area;
  plot.svg.append(draw("rect", { class: "band", x: left, width: right - left, y: plot.sy(low), height: plot.sy(-low) - plot.sy(low) }));
  for (const edge of new Set([low, high, -low, -high])) {
    plot.svg.append(draw("line", { class: "band-edge", x1: left, x2: right, y1: plot.sy(edge), y2: plot.sy(edge) }));
  }
}

function showDurations() {
  const host = document.getElementById("plots-seconds");
  if (!host) return;
  const stages = ["intake", "segment", "quantify"];
  const groups = [...stages.map((name, place) => [name, (visit) => visit.seconds[place]]), ["all three", (visit) => visit.total]].map(([name, of]) => {
    const scans = VISITS.filter((visit) => of(visit) !== null).map((visit) => visit.index);
    const values = scans.map((index) => of(VISITS[index]));
    return { name, scans, values, median: [...values].sort((a, b) => a - b)[values.length >> 1] };
  }).filter((group) => group.values.length);
  if (!groups.length) { host.append(make("p", {}, "No visit has been computed yet.")); return; }
  const plot = strip(host, { title: "Time a visit took", unit: "s", digits: 1 }, groups, { height: 240 });
  plot.caption.append(groups.map((group) => `${group.name}: median ${group.median.toFixed(1)} s, longest ${Math.max(...group.values).toFixed(1)} s`).join("; "));
  const slow = DATA.slowest.map((index) => VISITS[index]);
  const most = slow[0].total;
  const rows = slow.map((visit) => {
    const parts = visit.seconds.map((seconds, place) => make("span", { class: `s${place}`, style: `flex:${seconds ?? 0}`, title: `${stages[place]} ${tell(seconds, "s", 1)}` }));
    const link = make("a", { href: linkOf(visit) }, visit.name);
    link.addEventListener("click", (event) => { if (!visit.page) { event.preventDefault(); showRow(visit); } });
    return make("tr", {}, make("td", {}, link), make("td", { class: "number" }, tell(visit.total, "s", 1)),
      ...visit.seconds.map((seconds) => make("td", { class: "number soft" }, tell(seconds, "", 1))),
      make("td", { class: "wide" }, make("span", { class: "bar", style: `width:${100 * visit.total / most}%` }, ...parts)));
  });
  const heads = ["Visit", "total", ...stages, ""].map((name, place) => make("th", { scope: "col", class: place && place < 5 ? "number" : null }, name));
  const key = stages.map((name, place) => [make("i", { class: `key s${place}` }), name]).flat();
  document.getElementById("slowest").append(make("table", { class: "bars" }, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows)),
    make("p", { class: "soft" }, "Seconds of each stage.", ...key));
}

function showResults() {
  showDistributions();
  showDrift();
  const steady = listeners.length;
  showChanges();
  const changing = listeners.splice(steady);
  listeners.push(() => changing.forEach((listener) => listener()));
  document.querySelectorAll("input[name=view]").forEach((choice) => choice.addEventListener("change", () => {
    changing.length = 0;
    const before = listeners.length;
    showChanges();
    changing.push(...listeners.splice(before));
    changing.forEach((listener) => listener());
  }));
}

if (!DATA.is_blinded) showResults();
showDurations();
