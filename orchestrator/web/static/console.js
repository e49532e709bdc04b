// Small conveniences; every page works without them. No inline scripts anywhere (see the CSP).
"use strict";
document.addEventListener("htmx:configRequest", (event) => {
  const token = document.querySelector('meta[name="csrf-token"]');
  if (token) event.detail.headers["X-CSRF-Token"] = token.content;
});
function tick() {
  for (const element of document.querySelectorAll("[data-countdown]")) {
    const left = Math.round((Date.parse(element.dataset.countdown) - Date.now()) / 1000);
    if (Number.isNaN(left)) continue;
    const hours = Math.floor(left / 3600), minutes = Math.floor((left % 3600) / 60), seconds = left % 60;
    element.textContent = left <= 0 ? "due now"
      : hours ? `in ${hours} h ${minutes} min` : minutes ? `in ${minutes} min ${seconds} s` : `in ${seconds} s`;
  }
}
setInterval(tick, 1000);
tick();
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button || !navigator.clipboard) return;
  navigator.clipboard.writeText(button.dataset.copy).then(() => { button.textContent = "Copied"; });
});
// A form with data-confirm asks first; the server asks for typed confirmation where it matters.
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});
// Whoever started a job from a page is taken back there when it has ended well; its own page says how otherwise.
document.addEventListener("htmx:sseClose", () => {
  const ended = document.querySelector("[data-forward]");
  if (ended && ended.dataset.forward.startsWith("/jobs/")) window.location.assign(ended.dataset.forward);
});
// A piece that comes after its page: whoever listens is told that it is there, and everybody why when it is not.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.getAttribute("aria-busy") === "true") event.detail.shouldSwap = true;
});
document.addEventListener("htmx:afterRequest", (event) => {
  const piece = event.target, told = document.getElementById("told");
  if (!(piece instanceof Element) || piece.getAttribute("aria-busy") !== "true") return;
  piece.removeAttribute("aria-busy");
  if (!event.detail.xhr.status) (piece.querySelector(".waits") || piece).textContent = "The console did not answer. Load the page again.";
  if (told && event.detail.successful) told.textContent = piece.dataset.told || "";
  const wanted = document.getElementById(location.hash.slice(1));
  if (wanted && piece.contains(wanted)) wanted.scrollIntoView();
});
// A long text opens where the part is that its page is about.
for (const area of document.querySelectorAll("textarea[data-show]")) {
  const lines = area.value.slice(0, area.value.indexOf(area.dataset.show)).split("\n").length;
  area.scrollTop = (area.scrollHeight * (lines - 4)) / area.value.split("\n").length;
}
// On a phone the navigation is a row to be pushed: where one is stands in it.
document.querySelector(".top nav a[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
// What can be scrolled sideways can be scrolled by keyboard too.
function reach() {
  for (const box of document.querySelectorAll(".scroll")) {
    if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
addEventListener("resize", reach);
document.addEventListener("htmx:afterSettle", reach);
document.addEventListener("toggle", reach, true);
reach();
