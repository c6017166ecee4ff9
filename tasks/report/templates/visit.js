const decisionsHead = {{ decisions | tojson }};
const body = document.body, form = document.getElementById("form");
body.classList.add("blinded");

// Echoes
const films = [...document.querySelectorAll(".film")];
function step(film, echo) {
  const slider = film.querySelector("input[type=range]"), captions = JSON.parse(film.dataset.captions);
  slider.value = echo;
  slider.setAttribute("aria-valuetext", captions[echo]);
  film.querySelectorAll(".reel").forEach((reel) => { reel.style.left = `-${100 * echo}%`; });
  film.querySelector("output").textContent = captions[echo];
}
films.forEach((film) => film.querySelector("input[type=range]").addEventListener("input", (event) => step(film, Number(event.target.value))));
function show(kind) {
  body.classList.toggle("aligned", kind === "aligned");
  document.querySelector(`input[name=show][value=${kind}]`).checked = true;
}
document.querySelectorAll("input[name=show]").forEach((input) => input.addEventListener("change", () => show(input.value)));
const contours = document.getElementById("contours"), strips = document.getElementById("strips");
contours.addEventListener("change", () => body.classList.toggle("bare", !contours.checked));
strips.addEventListener("change", () => body.classList.toggle("strips", strips.checked));
let playing = 0;
const play = document.getElementById("play");
play.addEventListener("click", () => {
  if (playing) { clearInterval(playing); playing = 0; } else {
    playing = setInterval(() => films.forEach((film) => {
      const slider = film.querySelector("input[type=range]");
      step(film, (Number(slider.value) + 1) % (Number(slider.max) + 1));
    }), 300);
  }
  play.setAttribute("aria-pressed", String(Boolean(playing)));
  play.textContent = playing ? "Stop" : "Play all";
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("textarea, input[type=text]")) return;
  if (event.key === "a") show(body.classList.contains("aligned") ? "acquired" : "aligned");
  else if (event.key === "c") contours.click();
  else if (event.key === "f") strips.click();
  else if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && !event.target.matches("input")) {
    const film = document.activeElement.closest(".film") || films.find((one) => one.getBoundingClientRect().bottom > 0);
    if (!film) return;
    const slider = film.querySelector("input[type=range]");
    const echo = Math.min(Math.max(Number(slider.value) + (event.key === "ArrowLeft" ? -1 : 1), 0), Number(slider.max));
    step(film, echo);
    event.preventDefault();
  }
});

// Decisions
const problem = document.getElementById("problem"), done = document.getElementById("done"), reader = document.getElementById("reader");
let hasLooked = false;
function unblind() { body.classList.remove("blinded"); }
function decisionOf(fieldset) {
  const chosen = (name) => { const input = fieldset.querySelector(`input[name^=${name}-]:checked`); return input && input.value; };
  return { role: fieldset.dataset.role, slice_index: Number(fieldset.dataset.slice), guide: chosen("guide"),
    decision: chosen("decision"), comment: fieldset.querySelector("textarea").value.trim() };
}
const fieldsets = [...document.querySelectorAll("fieldset[data-role]")];
function incomplete(one) { return !one.guide || !one.decision || (one.decision !== "accept" && !one.comment); }
document.getElementById("accept-all").addEventListener("click", () => fieldsets.forEach((fieldset) => {
  const one = decisionOf(fieldset);
  if (!one.guide) fieldset.querySelector("input[value=accepted]").checked = true;
  if (!one.decision) fieldset.querySelector("input[value=accept]").checked = true;
}));
document.getElementById("look").addEventListener("click", () => {
  hasLooked = true;
  unblind();
  form.querySelectorAll("fieldset, #reader, #save button").forEach((one) => { one.disabled = true; });
  problem.textContent = "";
  done.textContent = "Looked at without deciding: nothing is saved. Load the page anew to decide.";
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (hasLooked) return;
  const slices = fieldsets.map(decisionOf);
  fieldsets.forEach((fieldset, index) => fieldset.classList.toggle("incomplete", incomplete(slices[index])));
  const open = slices.filter(incomplete);
  if (open.length) {
    problem.textContent = `${open.length} of ${slices.length} still open: guide and slice need a choice each, and a comment unless accepted.`;
    document.querySelector("fieldset.incomplete").scrollIntoView({ block: "center" });
    return;
  }
  if (!reader.value.trim()) { problem.textContent = "Say who reads: the reader id is missing."; reader.focus(); return; }
  problem.textContent = "";
  const decisions = { ...decisionsHead, reader_id: reader.value.trim(), decided_at: new Date().toISOString().replace(/\.\d+Z$/, "Z"), slices };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(decisions, null, 1) + "\n"], { type: "application/json" }));
  link.download = `decisions_${decisions.subject_id}_${decisions.visit_id}_${decisions.reader_id.replace(/[^A-Za-z0-9._-]/g, "_")}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
  unblind();
  done.textContent = `Saved as ${link.download}.`;
});
