// Small custom elements. Every page works without them; they only make times local and failures visible.
"use strict";

// <local-time><time datetime="…Z" title="… UTC">… UTC</time></local-time>: the viewer's zone, UTC on hover.
class LocalTime extends HTMLElement {
  connectedCallback() {
    const show = () => {
      const time = this.querySelector("time");
      const at = time && new Date(time.dateTime);
      if (!at || Number.isNaN(at.getTime())) return;
      const two = (n) => String(n).padStart(2, "0");
      const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
      // Today's times go without the date; the whole time in UTC is in the title.
      const today = at.toDateString() === new Date().toDateString();
      const clock = `${two(at.getHours())}:${two(at.getMinutes())}`;
      const text = "minutes" in this.dataset ? `${day} ${clock}` : `${today ? "" : day + " "}${clock}:${two(at.getSeconds())}`;
      if (time.textContent !== text) time.textContent = text;
    };
    show();
    // A refresh in place brings UTC again.
    this.watch ??= new MutationObserver(show);
    this.watch.observe(this, { childList: true, subtree: true, characterData: true });
  }
  disconnectedCallback() { this.watch?.disconnect(); }
}
customElements.define("local-time", LocalTime);

// <live-region data-failed="…">: says so when updates stop arriving, and takes it back when they come again.
class LiveRegion extends HTMLElement {
  connectedCallback() {
    this.addEventListener("htmx:error", () => this.say(true));
    this.addEventListener("htmx:response:error", () => this.say(true));
    this.addEventListener("htmx:after:swap", () => this.say(false));
  }
  say(failed) {
    let note = this.querySelector(":scope > .failed");
    if (failed && !note) {
      note = document.createElement("p");
      note.className = "failed";
      note.setAttribute("role", "alert");
      note.textContent = this.dataset.failed;
      this.prepend(note);
    } else if (!failed && note) note.remove();
  }
}
customElements.define("live-region", LiveRegion);

// <count-down data-until="Unix seconds" data-over="…">: how long something still holds.
class CountDown extends HTMLElement {
  connectedCallback() {
    const show = () => {
      const left = Math.max(0, Math.round(Number(this.dataset.until) - Date.now() / 1000));
      this.textContent = left ? `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}` : this.dataset.over;
      if (left) return;
      clearInterval(this.timer);
      this.setAttribute("role", "alert");
    };
    this.timer = setInterval(show, 1000);
    show();
  }
  disconnectedCallback() { clearInterval(this.timer); }
}
customElements.define("count-down", CountDown);

// The viewer's zone, for forms and pictures that the server makes in it.
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
if (zone) document.cookie = `sekisho_zone=${zone}; path=/; max-age=31536000; samesite=strict`;

// The user menu closes on Escape and on a click elsewhere.
for (const menu of document.querySelectorAll("details.menu")) {
  document.addEventListener("click", (event) => { if (!menu.contains(event.target)) menu.open = false; });
  menu.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { menu.open = false; menu.querySelector("summary").focus(); }
  });
}
