"use strict";

const seed = document.getElementById("seed");
const size = document.getElementById("size");

function showSeed() {
  for (const img of document.querySelectorAll("#pictures img[data-seed]")) img.hidden = img.dataset.seed !== seed.value;
}

function setSize() {
  document.querySelector("#pictures table")?.style.setProperty("--side", `${size.value}px`);
}

document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
seed?.addEventListener("change", showSeed);
size.addEventListener("input", setSize);
if (seed?.options.length) showSeed();
setSize();
