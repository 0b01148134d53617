// Fetches the page again every few seconds and puts its live parts in the place of the old ones, until nothing changes any
// more or whoever reads it says so. Without it, the page is as it was when it was loaded.
"use strict";
(() => {
  const main = document.querySelector("main[data-every]");
  const place = document.querySelector(".updates");
  if (!main || !place) return;
  const every = Number(main.dataset.every) * 1000;
  let paused = false;

  const button = document.createElement("button");
  const told = document.createElement("span");
  button.type = "button";
  button.className = "plain";
  place.append(button, told);
  const tell = (text) => { told.textContent = text; };
  const label = () => {
    button.textContent = paused ? "Go on with updates" : "Pause updates";
    tell(paused ? "Paused." : `Every ${every / 1000} s.`);
  };
  label();
  button.addEventListener("click", () => {
    paused = !paused;
    label();
  });

  // Only what has changed, and nothing that is being used.
  const put = (part, next) => {
    const opened = [...part.querySelectorAll("details")].map((each) => each.open);
    next.querySelectorAll("details").forEach((each, n) => { each.open = opened[n] ?? each.open; });
    if (part.innerHTML === next.innerHTML || part.contains(document.activeElement)) return;
    part.replaceChildren(...next.childNodes);
  };

  const look = async () => {
    if (!paused && !document.hidden) {
      try {
        const reply = await fetch(location.href, { credentials: "same-origin" });
        // The token is asked for again.
        if (reply.redirected) return location.reload();
        if (!reply.ok) throw new Error(String(reply.status));
        const page = new DOMParser().parseFromString(await reply.text(), "text/html");
        for (const part of document.querySelectorAll("[data-live]")) {
          const next = page.getElementById(part.id);
          if (next) put(part, next);
        }
        const [said, now] = [document.getElementById("said"), page.getElementById("said")];
        if (said && now && said.textContent !== now.textContent) said.textContent = now.textContent;
        if (!page.querySelector("main[data-every]")) {
          document.querySelector("form:has(.cancel)")?.remove();
          button.remove();
          return tell("It is over.");
        }
        if (!paused) label();
      } catch {
        tell("The gateway does not answer; it is asked again.");
      }
    }
    setTimeout(look, every);
  };
  setTimeout(look, every);
})();
