"use strict";
// One cursor for all panels: every plot spans the same seconds, so its place is one percentage.
const { start, end, until, panels } = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const audio = document.querySelector("audio"); // null where the sound cannot be decoded
const clock = document.getElementById("clock");
const values = panels.map((_, p) => document.querySelectorAll(`[data-panel="${p}"] .value`));
let now = start; // where the cursor is
let over = null; // where the pointer is, while it is over a plot

const percent = (time) => `${(100 * (time - start)) / (until - start)}%`;

function show() {
  root.style.setProperty("--at", percent(now));
  document.body.classList.toggle("over", over !== null);
  if (over !== null) root.style.setProperty("--over", percent(over));
  const time = over ?? now;
  clock.textContent = `${time.toFixed(3)} s`;
  panels.forEach((panel, p) => {
    const frame = Math.floor((time - panel.first) * panel.rate + 0.5);
    panel.reads.forEach((reads, t) => {
      const value = frame < 0 || frame >= reads.length ? null : reads[frame];
      values[p][t].textContent = value === null ? "–" : `${value}${panel.units[t] && ` ${panel.units[t]}`}`;
    });
  });
}

function seek(time) {
  now = Math.min(Math.max(time, start), until);
  if (audio) audio.currentTime = Math.min(now, end) - start;
  show();
}

function follow() {
  now = start + audio.currentTime;
  show();
  if (!audio.paused) requestAnimationFrame(follow);
}

function timeAt(event) {
  const box = event.currentTarget.getBoundingClientRect();
  return Math.min(Math.max(start + ((event.clientX - box.left) / box.width) * (until - start), start), until);
}

for (const plot of document.querySelectorAll(".plot")) {
  plot.addEventListener("pointermove", (event) => {
    over = timeAt(event);
    if (event.buttons & 1) seek(over);
    else show();
  });
  plot.addEventListener("pointerleave", () => { over = null; show(); });
  plot.addEventListener("pointerdown", (event) => { if (event.button === 0) seek(timeAt(event)); });
}

if (audio) {
  audio.addEventListener("play", follow);
  audio.addEventListener("pause", follow); // where it really stopped
  // The browser's own slider moves the cursor too; a cursor behind the end of the sound stays there.
  audio.addEventListener("seeking", () => { if (Math.abs(Math.min(now, end) - start - audio.currentTime) > 0.002) follow(); });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("audio, summary, a")) return;
  const step = event.shiftKey ? 1 : 0.1;
  if (event.key === " " && audio) { if (audio.paused) audio.play(); else audio.pause(); }
  else if (event.key === "ArrowLeft") seek(now - step);
  else if (event.key === "ArrowRight") seek(now + step);
  else if (event.key === "Home") seek(start);
  else return;
  event.preventDefault();
});

function seekToAddress() {
  const time = parseFloat(location.hash.replace(/^#t=/, "")); // page.html#t=1.25: a place to point others to
  if (location.hash.startsWith("#t=") && Number.isFinite(time)) seek(time);
}
window.addEventListener("hashchange", seekToAddress);
show();
seekToAddress();
