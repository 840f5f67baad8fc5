"use strict";

// One participant's session. Only the server knows which image is fake; this page requests the images of the next
// trial, shows them one after the other, and sends back the choice and all durations.

const SIDES = ["left", "right"];
const TOLERANCE = 2; // milliseconds: an exposure ends with the frame this close to its full time
const $ = (id) => document.getElementById(id);

let study; // {question, practice, trials, seconds, pause, size}
let session; // {participant, trial, practice, finished}
let secret = ""; // of the session; needed to see its images and to answer

class Refused extends Error {}

async function call(path, body) {
  const options = { cache: "no-store", headers: secret ? { "X-Study-Secret": secret } : {} };
  if (body !== undefined) {
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
    options.headers["Content-Type"] = "application/json";
  }
  const response = await fetch(path, options);
  if (response.ok) return response;
  if (response.status >= 500) throw new Error(response.statusText);
  throw new Refused((await response.json()).error);
}

// Repeat an action until the server answers; errors of the server are thrown.
async function persist(action) {
  for (;;) {
    try {
      return await action();
    } catch (error) {
      if (error instanceof Refused) throw error;
      await new Promise((resolve) => {
        $("problem").addEventListener("close", resolve, { once: true });
        $("problem").showModal();
      });
    }
  }
}

const get = (path) => persist(async () => (await call(path)).json());
const post = (path, body) => persist(async () => (await call(path, body)).json());
const who = () => `participant=${encodeURIComponent(session.participant)}`;

function show(section, phase = section) {
  for (const element of document.querySelectorAll("main > section")) element.hidden = element.id !== section;
  document.body.dataset.phase = phase;
}

const nextFrame = () => new Promise(requestAnimationFrame);
const frame = (side) => $(side).querySelector(".frame");
const label = (side) => $(side).querySelector(".label");

// Wait from one frame on the screen to another, and return the milliseconds between them. Changes by `begin` appear
// with the first one, and changes that the caller makes afterwards with the second one.
async function hold(seconds, begin = () => {}) {
  const start = await nextFrame();
  begin();
  let now = start;
  while (now - start < 1000 * seconds - TOLERANCE) now = await nextFrame();
  return now - start;
}

function click(...ids) {
  return new Promise((resolve) => {
    const off = new AbortController();
    for (const id of ids) {
      $(id).addEventListener("click", () => { off.abort(); resolve(id); }, { signal: off.signal });
    }
  });
}

async function loadImage(side) {
  const response = await call(`/image?${who()}&trial=${session.trial}&side=${side}`);
  const image = new Image();
  image.alt = "";
  image.draggable = false;
  image.src = URL.createObjectURL(await response.blob());
  await image.decode();
  URL.revokeObjectURL(image.src);
  return image;
}

async function present(images) {
  const shown = [];
  for (const [i, side] of SIDES.entries()) {
    document.body.dataset.phase = "pause";
    await hold(study.pause);
    shown.push(await hold(study.seconds, () => {
      frame(side).replaceChildren(images[i]);
      document.body.dataset.phase = side;
    }));
    frame(side).replaceChildren();
  }
  return shown;
}

async function ask() {
  $("question").replaceChildren("Which one was ", emphasis(study.question), "?");
  $("help").textContent = "Click on the left or the right side, or press the arrow key ← or →.";
  document.body.dataset.phase = "question";
  for (const side of SIDES) $(side).disabled = false;
  const start = performance.now();
  const choice = await click(...SIDES);
  const milliseconds = performance.now() - start;
  for (const side of SIDES) $(side).disabled = true;
  $("question").textContent = $("help").textContent = "";
  document.body.dataset.phase = "pause";
  return [choice, milliseconds];
}

function emphasis(text) {
  const element = document.createElement("em");
  element.textContent = text;
  return element;
}

async function giveFeedback(feedback, choice, images) {
  for (const [i, side] of SIDES.entries()) {
    frame(side).replaceChildren(images[i]);
    label(side).textContent = side === feedback.fake ? "Fake" : "Real";
  }
  $(choice).classList.add("chosen", feedback.correct ? "correct" : "wrong");
  const asked = study.question === "fake" ? feedback.fake : SIDES.find((side) => side !== feedback.fake);
  $("question").textContent = feedback.correct ? "Correct" : `No: the ${asked} one was ${study.question}`;
  $("progress").value += 1;
  $("next").hidden = false;
  document.body.dataset.phase = "feedback";
  $("next").focus({ preventScroll: true });
  await click("next");
}

function clearTrial() {
  for (const side of SIDES) {
    frame(side).replaceChildren();
    label(side).textContent = side === "left" ? "Left" : "Right";
    $(side).classList.remove("chosen", "correct", "wrong");
    $(side).disabled = true;
  }
  $("question").textContent = $("help").textContent = "";
  $("next").hidden = true;
  const [number, total] = session.practice
    ? [session.trial + 1, study.practice]
    : [session.trial - study.practice + 1, study.trials];
  $("where").textContent = `${session.practice ? "Practice " : ""}${number} of ${total}`;
  $("progress").max = total;
  $("progress").value = number - 1;
}

async function runTrial() {
  clearTrial();
  show("trial", "pause");
  const { participant, trial } = session;
  const images = await persist(() => Promise.all(SIDES.map(loadImage)));
  const shown_ms = await present(images);
  const [choice, response_ms] = await ask();
  const { feedback, ...state } = await post("/api/answer", { participant, trial, choice, shown_ms, response_ms });
  if (feedback) await giveFeedback(feedback, choice, images);
  session = state;
}

async function interlude(title, text) {
  $("break-title").textContent = title;
  $("break-text").textContent = text;
  show("break");
  $("go").focus();
  await click("go");
}

async function runSession() {
  if (session.trial > 0 && !session.finished) {
    await interlude("Welcome back", "You continue where you stopped.");
  }
  let wasPractice = session.practice;
  while (!session.finished) {
    if (wasPractice && !session.practice) {
      await interlude("The practice is over", `${plural(study.trials, "pair")} follow. From now on there is no feedback.`);
    }
    wasPractice = session.practice;
    try {
      await runTrial();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      session = await get(`/api/state?${who()}`); // the session continued in another window
    }
  }
  $("end-text").textContent = `${session.participant}, your session is complete and all answers are saved. You may close this page.`;
  show("end");
}

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

function describe() {
  document.documentElement.style.setProperty("--size", `${study.size}px`);
  for (const element of document.querySelectorAll(".question")) element.textContent = study.question;
  for (const element of document.querySelectorAll(".seconds")) element.textContent = plural(study.seconds, "second");
  const each = 2 * study.seconds + 2 * study.pause + 2;
  const minutes = Math.max(1, Math.round(((study.practice + study.trials) * each) / 60));
  const practice = `${plural(study.practice, "pair")} to practise, with feedback; then `;
  $("plan").textContent = `${study.practice ? practice : ""}${plural(study.trials, "pair")} that count. About ${plural(minutes, "minute")}.`;
  const check = () => { $("narrow").hidden = innerWidth >= 2 * study.size + 100 && innerHeight >= study.size + 200; };
  addEventListener("resize", check);
  check();
}

async function welcome() {
  show("welcome");
  $("name").focus();
  for (;;) {
    await new Promise((resolve) => {
      $("form").addEventListener("submit", (event) => { event.preventDefault(); resolve(); }, { once: true });
    });
    try {
      secret = kept($("name").value);
      const { secret: fresh, ...state } = await post("/api/session", { participant: $("name").value });
      if (fresh) keep(state.participant, fresh);
      return state;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      $("name").setCustomValidity(error.message);
      $("name").reportValidity();
      $("name").addEventListener("input", () => $("name").setCustomValidity(""), { once: true });
    }
  }
}

// The secret of a session is kept in this browser, so the same name entered here continues it.
const nameOf = (participant) => `secret of ${participant.normalize("NFC").trim().split(/\s+/).join(" ").toLowerCase()}`;
const kept = (participant) => localStorage.getItem(nameOf(participant)) ?? "";

function keep(participant, fresh) {
  secret = fresh;
  localStorage.setItem(nameOf(participant), fresh);
}

// The name is kept only for this tab, so a reload continues the session.
async function remembered() {
  const participant = sessionStorage.getItem("participant");
  if (participant === null) return null;
  secret = kept(participant);
  try {
    return await get(`/api/state?participant=${encodeURIComponent(participant)}`);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return null; // the study was made again
  }
}

async function main() {
  $("another").addEventListener("click", () => {
    sessionStorage.clear();
    location.reload();
  });
  addEventListener("keydown", (event) => {
    const side = { ArrowLeft: "left", ArrowRight: "right" }[event.key];
    if (side && document.body.dataset.phase === "question" && !event.repeat) $(side).click();
  });
  study = await get("/api/study");
  describe();
  session = await remembered() ?? await welcome();
  sessionStorage.setItem("participant", session.participant);
  $("code").textContent = `Name or code: ${session.participant}`;
  $("code").hidden = false;
  await runSession();
}

main();
