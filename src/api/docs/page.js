// Sends what is tried on /docs to the gateway that the page came from, and shows the answer. It keeps nothing.
"use strict";

function fill(form) {
  const chosen = form.querySelector(".example")?.selectedOptions[0];
  if (chosen) form.querySelector(".body").value = chosen.value;
}

// What a form asks for: a path, and what fetch() takes.
function request(form) {
  let path = form.dataset.path;
  const query = new URLSearchParams();
  const headers = {};
  for (const input of form.querySelectorAll("input[data-in]")) {
    const value = input.value;
    if (input.dataset.in === "path") path = path.replace(`{${input.name}}`, encodeURIComponent(value));
    else if (value === "") continue;
    else if (input.dataset.in === "query") query.append(input.name, value);
    else headers[input.name] = value;
  }
  const key = document.getElementById("key-text").value.trim();
  if (key !== "") headers.Authorization = `Bearer ${key}`;
  const method = form.dataset.method.toUpperCase();
  const options = { method, headers, credentials: "omit", redirect: "error" };
  const body = form.querySelector(".body");
  if (body) {
    headers["Content-Type"] = form.querySelector(".example").selectedOptions[0].dataset.media;
    options.body = body.value;
  }
  const search = query.toString();
  return [search === "" ? path : `${path}?${search}`, options];
}

// A dry run asks for nothing that cannot be undone.
function deletes(path, options) {
  if (options.method === "GET") return false;
  if (path.includes("dry_run=true")) return false;
  try {
    return JSON.parse(options.body).dry_run !== true;
  } catch {
    return true;
  }
}

function shown(media, text) {
  if (!media.includes("json") || media.includes("ndjson")) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

async function send(form) {
  const told = form.querySelector(".told");
  const say = (text) => {
    const pre = document.createElement("pre");
    pre.textContent = text;
    told.replaceChildren(pre);
  };
  const [path, options] = request(form);
  if (deletes(path, options) && !confirm(`${options.method} ${path}\n\nThis may delete contacts, which cannot be undone. Send it?`)) return;
  say("…");
  try {
    const answer = await fetch(path, options);
    const media = answer.headers.get("content-type") ?? "";
    const lines = [...answer.headers].map(([name, value]) => `${name}: ${value}`);
    say(`${answer.status} ${answer.statusText}\n${lines.join("\n")}\n\n${shown(media, await answer.text())}`);
  } catch (error) {
    say(`No answer: ${error.message}`);
  }
}

// A link to something folded opens it.
function unfold() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") target.open = true;
}

for (const form of document.querySelectorAll("form")) {
  fill(form);
  form.querySelector(".example")?.addEventListener("change", () => fill(form));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (form.classList.contains("try")) send(form);
  });
}
addEventListener("hashchange", unfold);
unfold();
