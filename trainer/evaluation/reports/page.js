"use strict";
// A list of which only the rows in sight are in the document, so that ten thousand open at once; one row in full beside it.
const { evaluations, benchmarks, prompts, rows } = JSON.parse(document.getElementById("data").textContent);
const [BENCHMARK, ID, QUESTION, CHOICES, TRUTH, GROUPS, AUDIO, ANSWERS] = [0, 1, 2, 3, 4, 5, 6, 7];
const [ANSWER, CHOICE, STATUS, OFFICIAL, STRICT, OFFICIAL_WHY, STRICT_WHY, PROMPT, CUT, ERROR, TOKENS, JUDGEMENT] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
const LINE = 30; // pixels; as page.css has it
const byId = (id) => document.getElementById(id);
const list = byId("list"), spacer = byId("spacer"), detail = byId("detail");
const filters = { benchmark: byId("benchmark"), run: byId("run"), rule: byId("rule"), status: byId("status"), group: byId("group"), search: byId("search") };
let shown = []; // numbers of rows that the filters leave
let chosen = -1; // number of the row in full

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text; // never as HTML: texts are of strangers and of models
  return made;
};
const option = (value, text) => Object.assign(document.createElement("option"), { value, textContent: text });

const verdict = (answer, rule) => answer === null ? null : answer[rule === "official" ? OFFICIAL : STRICT];
const texts = []; // what is searched, of each row; made when it is first wanted
const textOf = (i) => texts[i] ??= [rows[i][ID], rows[i][QUESTION], rows[i][TRUTH], ...rows[i][CHOICES], ...rows[i][ANSWERS].map((a) => a?.[ANSWER] ?? "")].join("\n").toLowerCase();

function fillFilters() {
  if (benchmarks.length > 1) filters.benchmark.append(option("", "all benchmarks"));
  benchmarks.forEach((name, i) => filters.benchmark.append(option(i, name)));
  evaluations.forEach((name, i) => filters.run.append(option(i, name)));
  filters.run.hidden = evaluations.length < 2;
  for (const one of filters.status.options) if (one.value === "changed") one.disabled = evaluations.length < 2;
  fillGroups();
}

function fillGroups() {
  const counts = new Map();
  for (const row of rows) {
    if (filters.benchmark.value !== "" && row[BENCHMARK] !== Number(filters.benchmark.value)) continue;
    for (const [key, value] of Object.entries(row[GROUPS])) {
      if (!counts.has(key)) counts.set(key, new Map());
      counts.get(key).set(value, (counts.get(key).get(value) ?? 0) + 1);
    }
  }
  filters.group.replaceChildren(option("", "all groups"));
  for (const [key, values] of counts) {
    const part = Object.assign(document.createElement("optgroup"), { label: key });
    for (const value of [...values.keys()].sort()) part.append(option(JSON.stringify([key, value]), `${value} (${values.get(value)})`));
    filters.group.append(part);
  }
}

function passes(row, wanted) {
  const answer = row[ANSWERS][wanted.run];
  switch (wanted.status) {
    case "": return true;
    case "right": return verdict(answer, wanted.rule) === 1;
    case "wrong": return verdict(answer, wanted.rule) === 0;
    case "unparsed": return answer?.[STATUS] === "unparsed";
    case "missing": return answer === null || ["missing", "failed", "empty"].includes(answer[STATUS]);
    case "cut": return answer?.[CUT] === 1;
    case "differ": return answer !== null && answer[OFFICIAL] !== answer[STRICT];
    case "changed": return new Set(row[ANSWERS].map((a) => verdict(a, wanted.rule))).size > 1;
  }
}

function filter() {
  const wanted = { run: Number(filters.run.value || 0), rule: filters.rule.value, status: filters.status.value };
  const group = filters.group.value ? JSON.parse(filters.group.value) : null;
  const words = filters.search.value.trim().toLowerCase();
  const benchmark = filters.benchmark.value === "" ? null : Number(filters.benchmark.value);
  shown = [];
  rows.forEach((row, i) => {
    if (benchmark !== null && row[BENCHMARK] !== benchmark) return;
    if (group && row[GROUPS][group[0]] !== group[1]) return;
    if (words && !textOf(i).includes(words)) return;
    if (passes(row, wanted)) shown.push(i);
  });
  spacer.style.height = `${shown.length * LINE}px`;
  byId("count").textContent = `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
  list.scrollTop = 0;
  draw();
  if (!shown.includes(chosen)) choose(shown.length ? shown[0] : -1);
}

function mark(answer) {
  const value = verdict(answer, filters.rule.value);
  const status = answer === null ? "missing" : answer[STATUS];
  const kind = value === 1 ? "right" : status === "unparsed" ? "unparsed" : value === 0 && status === "answered" ? "wrong" : status === "unscored" ? "unscored" : value === 0 ? "missing" : status;
  const made = element("i", `mark ${kind}`);
  made.title = kind;
  return made;
}

function draw() {
  const first = Math.max(0, Math.floor(list.scrollTop / LINE) - 5);
  const last = Math.min(shown.length, first + Math.ceil(list.clientHeight / LINE) + 10);
  for (const old of list.querySelectorAll(".line")) old.remove();
  for (let n = first; n < last; n++) {
    const row = rows[shown[n]];
    const line = element("div", shown[n] === chosen ? "line chosen" : "line");
    line.style.top = `${n * LINE}px`;
    line.setAttribute("role", "option");
    line.append(...row[ANSWERS].map(mark), element("b", "", row[ID]), element("span", "", row[QUESTION]));
    line.addEventListener("click", () => choose(shown[n]));
    list.append(line);
  }
}

function answerCard(row, answer, name) {
  const card = element("article");
  const title = element("h4");
  if (answer !== null) title.append(mark(answer));
  title.append(element("span", "", evaluations.length > 1 ? name : "Answer"));
  card.append(title);
  if (answer === null) {
    card.append(element("p", "facts", "not asked"));
    return card;
  }
  if (answer[ANSWER] === null) card.append(element("p", "problem", answer[ERROR] || "no answer"));
  else card.append(element("pre", "answer", answer[ANSWER] || "(empty)"));
  if (answer[CUT]) card.append(element("p", "problem", "cut at the limit of tokens"));
  const facts = element("dl");
  const fact = (key, value) => { if (value) facts.append(element("dt", "", key), element("dd", "", value)); };
  const said = (value, why) => value === null ? "unscored" : `${value ? "right" : "wrong"}: ${why}`;
  fact("read as", answer[CHOICE] ?? "");
  fact("official", said(answer[OFFICIAL], answer[OFFICIAL_WHY]));
  fact("strict", said(answer[STRICT], answer[STRICT_WHY]));
  fact("tokens", answer[TOKENS]);
  fact("judge", answer[JUDGEMENT]);
  card.append(facts);
  if (prompts[answer[PROMPT]]) {
    const sent = element("details");
    sent.append(element("summary", "", "prompt as sent"), element("pre", "", prompts[answer[PROMPT]]));
    sent.open = evaluations.length === 1;
    card.append(sent);
  }
  return card;
}

function choose(i) {
  chosen = i;
  detail.replaceChildren();
  draw();
  if (i < 0) return;
  const row = rows[i];
  detail.append(element("h3", "", row[ID]), element("p", "question", row[QUESTION]));
  const clip = row[AUDIO] === null ? null : byId(`clip-${row[AUDIO]}`);
  if (clip) {
    const audio = Object.assign(document.createElement("audio"), { controls: true, preload: "metadata" });
    audio.addEventListener("loadedmetadata", () => { audio.dataset.seconds = audio.duration.toFixed(2); });
    audio.addEventListener("error", () => audio.replaceWith(element("p", "problem", "its audio cannot be played: is the folder beside the page there?")));
    audio.src = clip.textContent;
    detail.append(audio);
  } else detail.append(element("p", "facts", "its audio is not in this page"));
  if (row[CHOICES].length) {
    const choices = element("ul", "choices");
    for (const choice of row[CHOICES]) choices.append(element("li", choice === row[TRUTH] ? "truth" : "", choice));
    detail.append(choices);
  } else {
    const truth = element("p", "truth");
    truth.append(element("span", "facts", "truth: "), element("span", "", row[TRUTH] || "(none)"));
    detail.append(truth);
  }
  row[ANSWERS].forEach((answer, n) => detail.append(answerCard(row, answer, evaluations[n])));
  const groups = Object.entries(row[GROUPS]).map(([key, value]) => `${key}: ${value}`).join(" · ");
  detail.append(element("p", "facts", `${benchmarks[row[BENCHMARK]]}${groups ? ` · ${groups}` : ""}`));
}

for (const one of Object.values(filters)) one.addEventListener("input", () => {
  if (one === filters.benchmark) fillGroups();
  filter();
});
list.addEventListener("scroll", draw);
list.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const at = Math.min(Math.max(shown.indexOf(chosen) + step, 0), shown.length - 1);
  if (at < 0) return;
  choose(shown[at]);
  if (at * LINE < list.scrollTop) list.scrollTop = at * LINE;
  else if ((at + 1) * LINE > list.scrollTop + list.clientHeight) list.scrollTop = (at + 1) * LINE - list.clientHeight;
});
addEventListener("resize", draw);
fillFilters();
filter();
document.documentElement.dataset.ready = Math.round(performance.now()); // milliseconds since the page was asked for
