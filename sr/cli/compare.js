"use strict";
// Zoom counts pixels of the screen for each pixel of a picture, so at 1 and above every pixel is shown as it is.
const LEVELS = [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32];
const WHEEL_STEP = 40; // CSS pixels of turning for one level; a notch is about 100
const PINCH_STEP = 1.35; // of the distance of two fingers

const one = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const stage = one("#stage"), line = one("#line");
const labels = { left: one("#left-label"), right: one("#right-label") };
const pairs = all(".pair"), facts = all(".facts"), list = all("nav button");

const sides = { left: "bicubic", right: "srup" };
let shown = 0; // which picture
let zoom = null; // a level, or null to fit
let centre = { x: 0, y: 0 }; // of the view, in pixels of the picture
let split = 0.5; // of the visible part of the picture
let view = {}; // what `draw` has computed

function size() {
  const { width, height } = pairs[shown].dataset;
  return { width: Number(width), height: Number(height) };
}

function fitting() {
  const { width, height } = size();
  const most = Math.min(stage.clientWidth / width, stage.clientHeight / height) * devicePixelRatio;
  return most >= 1 ? Math.floor(most) : most; // a fraction above 1 would make pixels of unequal sizes
}

function draw() {
  const ratio = devicePixelRatio, pair = pairs[shown], { width, height } = size();
  const level = zoom ?? fitting(), factor = level / ratio; // CSS pixels for each pixel of the picture
  const origin = stage.getBoundingClientRect();
  const snap = (value, start) => Math.round((start + value) * ratio) / ratio - start; // to the screen's pixels
  const within = (value, length, seen) =>
    seen >= length ? length / 2 : clamp(value, seen / 2, length - seen / 2);
  centre = {
    x: within(centre.x, width, stage.clientWidth / factor),
    y: within(centre.y, height, stage.clientHeight / factor),
  };
  const left = snap(stage.clientWidth / 2 - centre.x * factor, origin.left), wide = snap(width * factor, 0);
  const top = snap(stage.clientHeight / 2 - centre.y * factor, origin.top), high = snap(height * factor, 0);
  Object.assign(pair.style, {
    left: `${left}px`, top: `${top}px`, width: `${wide}px`, height: `${high}px`,
  });
  pair.classList.toggle("smooth", level < 1);

  const from = Math.max(left, 0), to = Math.min(left + wide, stage.clientWidth);
  const at = snap(from + split * (to - from), origin.left), cut = at - left;
  for (const image of pair.children) {
    const { kind } = image.dataset;
    image.style.visibility = kind === sides.left || kind === sides.right ? "visible" : "hidden";
    image.style.clipPath = kind === sides.left ? `inset(0 ${wide - cut}px 0 0)` : `inset(0 0 0 ${cut}px)`;
  }
  const upper = Math.max(top, 0), lower = Math.min(top + high, stage.clientHeight);
  Object.assign(line.style, { left: `${at}px`, top: `${upper}px`, height: `${lower - upper}px` });
  line.setAttribute("aria-valuenow", Math.round(split * 100));
  line.setAttribute("aria-valuetext", `${Math.round(split * 100)} % ${sides.left}, the rest ${sides.right}`);
  for (const [side, label] of Object.entries(labels)) {
    label.textContent = sides[side];
    label.style.top = `${upper + 8}px`;
    const room = side === "left" ? at - from : to - at;
    label.style.visibility = room > label.offsetWidth + 16 ? "visible" : "hidden";
  }
  labels.left.style.left = `${from + 8}px`;
  labels.right.style.right = `${stage.clientWidth - to + 8}px`;

  const whole = wide <= stage.clientWidth && high <= stage.clientHeight;
  stage.classList.toggle("whole", whole);
  one("#zoom").textContent = level >= 1 ? `${level}\u00d7` : `${Math.round(level * 100)} %`;
  for (const button of all("[data-side]")) {
    button.setAttribute("aria-pressed", sides[button.dataset.side] === button.dataset.kind);
  }
  for (const button of all("[data-zoom]")) {
    button.setAttribute("aria-pressed", button.dataset.zoom === (zoom === null ? "fit" : String(zoom)));
  }
  view = { level, factor, left, top, from, to, at, whole };
}

function setSide(side, kind) {
  const other = side === "left" ? "right" : "left";
  if (sides[other] === kind) sides[other] = sides[side]; // the same on both sides shows nothing: swap
  sides[side] = kind;
  draw();
}

/** Zoom, and keep what lies at `x`, `y` of the stage where it is. */
function setZoom(level, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const point = { x: (x - view.left) / view.factor, y: (y - view.top) / view.factor };
  const factor = (level ?? fitting()) / devicePixelRatio;
  centre = {
    x: point.x - (x - stage.clientWidth / 2) / factor,
    y: point.y - (y - stage.clientHeight / 2) / factor,
  };
  zoom = level;
  draw();
}

function stepZoom(direction, x, y) {
  const fit = fitting();
  const next = direction > 0
    ? LEVELS.find((level) => level > view.level)
    : LEVELS.findLast((level) => level < view.level);
  if (next === undefined) return;
  if (direction < 0 && next < Math.min(fit, 1)) setZoom(null, x, y); // smaller than all of it is no use
  else setZoom(next, x, y);
}

function setSplit(value) {
  split = clamp(value, 0, 1);
  draw();
}

function pan(x, y) {
  centre = { x: centre.x + x / view.factor, y: centre.y + y / view.factor };
  draw();
}

function show(index) {
  shown = clamp(index, 0, pairs.length - 1);
  const { width, height } = size();
  centre = { x: width / 2, y: height / 2 };
  pairs.forEach((pair, at) => { pair.hidden = at !== shown; });
  facts.forEach((text, at) => { text.hidden = at !== shown; });
  list.forEach((button, at) => button.setAttribute("aria-current", at === shown));
  list[shown].scrollIntoView({ block: "nearest", inline: "nearest" });
  draw();
}

// One finger or the mouse moves the line or the picture; two fingers zoom.
const fingers = new Map();
let drag = null, spread = 0;

function place(event) {
  const box = stage.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
}

stage.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  stage.setPointerCapture(event.pointerId);
  const at = place(event);
  fingers.set(event.pointerId, at);
  if (fingers.size > 1) {
    drag = null;
    const [first, second] = fingers.values();
    spread = Math.hypot(first.x - second.x, first.y - second.y);
    return;
  }
  const onLine = event.target === line;
  drag = { moves: onLine || view.whole ? "line" : "picture", last: at, grip: onLine ? at.x - view.at : 0 };
  if (drag.moves === "line" && !onLine) setSplit((at.x - view.from) / (view.to - view.from));
  stage.classList.toggle("panning", drag.moves === "picture");
});
stage.addEventListener("pointermove", (event) => {
  if (!fingers.has(event.pointerId)) return;
  const at = place(event);
  fingers.set(event.pointerId, at);
  if (fingers.size === 2) {
    const [first, second] = fingers.values();
    const now = Math.hypot(first.x - second.x, first.y - second.y);
    if (now > spread * PINCH_STEP || now < spread / PINCH_STEP) {
      stepZoom(now > spread ? 1 : -1, (first.x + second.x) / 2, (first.y + second.y) / 2);
      spread = now;
    }
  } else if (drag?.moves === "line") {
    setSplit((at.x - drag.grip - view.from) / (view.to - view.from));
  } else if (drag) {
    pan(drag.last.x - at.x, drag.last.y - at.y);
    drag.last = at;
  }
});
function release(event) {
  fingers.delete(event.pointerId);
  drag = null;
  stage.classList.remove("panning");
}
stage.addEventListener("pointerup", release);
stage.addEventListener("pointercancel", release);

let turned = 0;
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  turned += event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 20 : 1);
  if (Math.abs(turned) < WHEEL_STEP) return;
  const { x, y } = place(event);
  stepZoom(turned < 0 ? 1 : -1, x, y);
  turned = 0;
}, { passive: false });

const KEYS = {
  ArrowLeft: () => setSplit(split - 0.02), ArrowDown: () => setSplit(split - 0.02),
  ArrowRight: () => setSplit(split + 0.02), ArrowUp: () => setSplit(split + 0.02),
  Home: () => setSplit(0), End: () => setSplit(1),
  "+": () => stepZoom(1), "=": () => stepZoom(1), "-": () => stepZoom(-1), "0": () => setZoom(null),
  "1": () => setZoom(1), "2": () => setZoom(2), "4": () => setZoom(4),
  PageUp: () => show(shown - 1), PageDown: () => show(shown + 1),
};
const SHIFTED = {
  ArrowLeft: () => pan(-60, 0), ArrowRight: () => pan(60, 0), ArrowUp: () => pan(0, -60), ArrowDown: () => pan(0, 60),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const act = (event.shiftKey && SHIFTED[event.key]) || KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

for (const button of all("[data-side]")) {
  button.addEventListener("click", () => setSide(button.dataset.side, button.dataset.kind));
}
for (const button of all("[data-zoom]")) {
  const { zoom: word } = button.dataset;
  button.addEventListener("click", () => setZoom(word === "fit" ? null : Number(word)));
}
for (const button of all("[data-step]")) {
  button.addEventListener("click", () => stepZoom(Number(button.dataset.step)));
}
list.forEach((button, at) => button.addEventListener("click", () => show(at)));
new ResizeObserver(() => draw()).observe(stage);
addEventListener("resize", draw); // also where only the ratio of pixels changes
show(0);
