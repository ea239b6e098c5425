"use strict";
// One page over the admin API. Whatever comes from it is put in as text, never as markup.

const PERIOD_MS = 1000, ANSWER_MS = 10_000, CHART_SECONDS = 300, GAP_SECONDS = 5, PAGE_SIZE = 50, TAP_LINES = 500;
const $ = (selector, root = document) => root.querySelector(selector);
const history = [];
let before = null, cursors = [""], selected = null, tapping = null, asked = null, refreshing = false;
let routes = [], lastSessions = new Map();

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// --- What the API says ---

class Refused extends Error {
  constructor(status, body) {
    super(body.error ?? "HTTP " + status);
    Object.assign(this, { status, hint: body.hint ?? "", faults: body.faults ?? [] });
  }
}

async function call(method, path, signal) {
  for (;;) {
    const token = sessionStorage.getItem("token");
    const headers = token ? { Authorization: "Bearer " + token } : {};
    // A gateway or a tunnel that says nothing is told, too; only a tap has no end of its own.
    const answer = await fetch(path, { method, headers, signal: signal ?? AbortSignal.timeout(ANSWER_MS), cache: "no-store" });
    if (answer.status === 401) {
      await askForToken(token);
      continue;
    }
    return answer;
  }
}

async function json(method, path) {
  const answer = await call(method, path);
  const body = await answer.json();
  if (!answer.ok) throw new Refused(answer.status, body);
  return body;
}

// All requests that meet a 401 wait for one answer.
function askForToken(tried) {
  if (tried !== sessionStorage.getItem("token")) return Promise.resolve();
  asked ??= new Promise((given) => {
    const dialog = $("#asking");
    $("#wrong").hidden = tried === null;
    $("form", dialog).onsubmit = (event) => {
      event.preventDefault();
      const field = event.target.elements.token;
      // No other bytes are in a token, and a header cannot hold some of them.
      if (!/^[!-~]+$/.test(field.value)) {
        $("#wrong").hidden = false;
        return;
      }
      sessionStorage.setItem("token", field.value);
      field.value = "";
      dialog.close();
      asked = null;
      given();
    };
    dialog.oncancel = (event) => event.preventDefault();
    dialog.showModal();
  });
  return asked;
}

// OpenMetrics text: name{label="value",…} number. Label values have escapes and may hold anything.
function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const found = /^([a-z_]+)(?:\{(.*)\})? ([^ ]+)$/.exec(line);
    if (!found) continue;
    const labels = {};
    for (const [, key, value] of (found[2] ?? "").matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[key] = value.replace(/\\(.)/g, (_, escaped) => (escaped === "n" ? "\n" : escaped));
    }
    samples.push({ name: found[1], labels, value: Number(found[3]) });
  }
  const all = (name, wanted = {}) => samples.filter((sample) => sample.name === name &&
    Object.entries(wanted).every(([key, value]) => sample.labels[key] === value));
  const sum = (name, wanted) => all(name, wanted).reduce((total, sample) => total + sample.value, 0);
  return { all, sum };
}

// --- Words ---

function bytes(count) {
  const units = ["B", "KB", "MB", "GB", "TB", "PB"];
  let at = 0;
  while (count >= 999.5 && at < units.length - 1) [count, at] = [count / 1000, at + 1];
  return (at && count < 99.95 ? count.toFixed(1) : Math.round(count)) + " " + units[at];
}

function span(seconds) {
  if (seconds < 60) return seconds.toFixed(seconds < 10 ? 1 : 0) + " s";
  if (seconds < 3600) return Math.floor(seconds / 60) + " min " + Math.floor(seconds % 60) + " s";
  if (seconds < 86400) return Math.floor(seconds / 3600) + " h " + Math.floor(seconds / 60 % 60) + " min";
  return Math.floor(seconds / 86400) + " d " + Math.floor(seconds / 3600 % 24) + " h";
}

const count = (value) => Math.round(value).toLocaleString("en");
const per = (value) => (value < 10 ? value.toFixed(1) : count(value)) + "/s";
const sessionsOf = (number) => (number === 1 ? "1 session" : count(number) + " sessions");

function notice(text, isBad) {
  // What is outside of an open dialog is not heard, and hardly seen.
  const dialogs = document.querySelectorAll("dialog[open]");
  if (dialogs.length) [...dialogs].at(-1).prepend($("#notice"));
  else $("header").after($("#notice"));
  $("#notice").textContent = text;
  $("#notice").classList.toggle("bad", isBad);
  $("#notice").hidden = !text;
}

function complain(error) {
  notice([error.message, ...(error.faults ?? []), error.hint].filter(Boolean).join("\n"), true);
}

// --- What is shown every second ---

// Rows are known by their key. One that stays keeps its buttons, and with them the focus and a click that has begun.
function renew(list, wanted) {
  const known = new Map([...list.children].map((row) => [row.key, row]));
  const rows = wanted.map((fresh) => {
    const row = known.get(fresh.key);
    if (!row) return fresh;
    known.delete(fresh.key);
    for (const [at, part] of [...fresh.children].entries()) {
      const old = row.children[at], button = $("button", part) ?? (part.matches("button") ? part : null);
      if (!button) old.replaceWith(part);
      else (old.matches("button") ? old : $("button", old)).disabled = button.disabled;
    }
    return row;
  });
  for (const row of [...list.children]) if (!rows.includes(row)) row.remove();
  for (const [at, row] of rows.entries()) if (list.children[at] !== row) list.insertBefore(row, list.children[at] ?? null);
}

function rates(now) {
  const at = performance.now();
  const totals = {
    up: now.sum("upsplice_bytes_total", { direction: "to_upstream" }),
    down: now.sum("upsplice_bytes_total", { direction: "to_downstream" }),
    upgrades: now.sum("upsplice_upgrades_total", { result: "switched" }),
    refused: now.sum("upsplice_upgrades_total") - now.sum("upsplice_upgrades_total", { result: "switched" }),
    ended: now.sum("upsplice_sessions_total"),
  };
  const found = {};
  for (const [name, total] of Object.entries(totals)) {
    // A counter that went back is that of a new process: what it has counted is since then.
    const since = before && total >= before.totals[name] ? before.totals[name] : 0;
    found[name] = before ? (total - since) / ((at - before.at) / 1000) : 0;
  }
  before = { at, totals };
  return found;
}

function pairs(list, entries, nothing) {
  list.replaceChildren(...(entries.length ? entries : [[nothing, ""]]).flatMap(([name, value]) =>
    [make("dt", { textContent: name }), make("dd", { textContent: value })]));
}

function showMetrics(now) {
  const rate = rates(now);
  history.push({ up: rate.up, down: rate.down, at: Date.now() });
  while (history.at(-1).at - history[0].at > CHART_SECONDS * 1000) history.shift();
  const tiles = [
    [count(now.sum("upsplice_sessions_open")), "live sessions"],
    [bytes(rate.up) + "/s", "to upstream"], [bytes(rate.down) + "/s", "to downstream"],
    [per(rate.upgrades), "upgrades"], [per(rate.refused), "refused or failed"],
    [per(rate.ended), "sessions ended"], [count(now.sum("upsplice_workers")), "workers"],
  ];
  $("#tiles").replaceChildren(...tiles.map(([value, name]) =>
    make("div", { className: "tile" }, make("b", { textContent: value }), make("span", { textContent: name }))));
  const version = now.all("upsplice_build_info")[0]?.labels.version;
  $("#version").textContent = version ? "version " + version : "";
  const engines = ["splice", "copy", "uring"].map((engine) => [engine, now.sum("upsplice_bytes_total", { engine })]);
  const total = engines.reduce((sum, [, carried]) => sum + carried, 0);
  $("#engines").replaceChildren(...engines.flatMap(([engine, carried]) => {
    const share = total ? carried / total : 0;
    const bar = make("meter", { value: share, max: 1, title: Math.round(share * 100) + " %" });
    bar.setAttribute("aria-label", engine);
    return [make("dt", { textContent: engine }), make("dd", {}, bar), make("dd", { textContent: bytes(carried) })];
  }));
  const named = (name, label) => now.all(name).filter((sample) => sample.value > 0)
    .map((sample) => [sample.labels[label], count(sample.value)]);
  pairs($("#fallbacks"), named("upsplice_splice_fallbacks_total", "reason"), "none");
  const failed = new Map();
  for (const { labels, value } of now.all("upsplice_upgrade_failures_total")) {
    if (value > 0) failed.set(labels.reason, (failed.get(labels.reason) ?? 0) + value);
  }
  pairs($("#failures"), [...failed].map(([reason, value]) => [reason, count(value)]), "none");
  const waited = (direction) => now.sum("upsplice_backpressure_paused_seconds_total", { direction });
  pairs($("#pressure"), [
    ["waits for a slow upstream", count(now.sum("upsplice_backpressure_paused_total", { direction: "to_upstream" })) + ", " + span(waited("to_upstream"))],
    ["waits for a slow downstream", count(now.sum("upsplice_backpressure_paused_total", { direction: "to_downstream" })) + ", " + span(waited("to_downstream"))],
    ["pipes that hold bytes", count(now.sum("upsplice_pipes_used"))],
    ["pipes kept", count(now.sum("upsplice_pipes_free"))],
    ["switches of engine", count(now.sum("upsplice_engine_switches_total"))],
  ]);
  draw();
}

const SVG = "http://www.w3.org/2000/svg";

function shape(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function draw(marked) {
  const most = Math.max(1, ...history.flatMap((point) => [point.up, point.down])) * 1.05;
  const newest = history.at(-1)?.at ?? 0;
  const x = (at) => CHART_SECONDS - (newest - history[at].at) / 1000, y = (value) => 100 - 100 * value / most;
  const drawing = shape("svg", { viewBox: `0 0 ${CHART_SECONDS} 100`, preserveAspectRatio: "none", role: "img" });
  drawing.setAttribute("aria-label", $("#under").textContent);
  for (const level of [0, 50, 100]) drawing.append(shape("line", { x1: 0, x2: CHART_SECONDS, y1: level, y2: level }));
  for (const way of ["up", "down"]) {
    // Nothing was asked while the page was hidden, and nothing is drawn of that time.
    const points = history.map((point, at) =>
      `${at && x(at) - x(at - 1) < GAP_SECONDS ? "L" : "M"}${x(at).toFixed(2)} ${y(point[way]).toFixed(2)}`);
    if (points.length) drawing.append(shape("path", { class: way, d: points.join("") }));
  }
  if (marked !== undefined) drawing.append(shape("line", { class: "at", x1: x(marked), x2: x(marked), y1: 0, y2: 100 }));
  drawing.onpointermove = (event) => {
    const box = drawing.getBoundingClientRect();
    const wanted = (event.clientX - box.left) / box.width * CHART_SECONDS;
    const nearest = history.reduce((best, _, at) => (Math.abs(x(at) - wanted) < Math.abs(x(best) - wanted) ? at : best), 0);
    if (history.length) draw(nearest);
  };
  drawing.onpointerleave = () => draw();
  $("#chart").replaceChildren(drawing);
  const point = history[marked ?? history.length - 1];
  if (point) {
    $("#under").textContent = `${new Date(point.at).toLocaleTimeString("en-GB")}: ${bytes(point.up)}/s to upstream (amber), ` +
      `${bytes(point.down)}/s to downstream (green); the top is ${bytes(most)}/s`;
  }
}

function showRoutes(drains) {
  // A drain of an endpoint may name its route; what it takes from which route, the state of the endpoint says.
  const drained = (name) => drains.some((drain) => drain.what === "gateway" || (drain.what === "route" && drain.route === name));
  renew($("#routes tbody"), routes.map((route) => {
    const endpoints = route.endpoints.flatMap((endpoint, at) => {
      const className = endpoint.state === "healthy" ? "quiet" : "warm";
      const note = make("span", { textContent: ` ${endpoint.state}, ${count(endpoint.sessions)}`, className });
      return [...(at ? [make("br")] : []), endpoint.backend, note];
    });
    const button = make("button", { type: "button", className: "small", textContent: "Drain…" });
    button.onclick = () => openDrain("route " + route.name);
    return make("tr", { key: route.name }, make("td", { textContent: route.name + (drained(route.name) ? " (draining)" : "") }),
      make("td", { className: "wrap", textContent: (route.host ?? "*") + route.path }), make("td", { textContent: route.mode }),
      make("td", {}, ...endpoints), make("td", { className: "n", textContent: count(route.sessions_open) }), make("td", {}, button));
  }));
  const select = $("#filter").elements.route;
  const names = routes.map((route) => route.name);
  if ([...select.options].slice(1).map((option) => option.value).join("\0") !== names.join("\0")) {
    const chosen = select.value;
    select.replaceChildren(make("option", { value: "", textContent: "any" }), ...names.map((name) => make("option", { value: name, textContent: name })));
    select.value = names.includes(chosen) ? chosen : "";
  }
}

function drainName(drain) {
  const place = [drain.endpoint && "endpoint " + drain.endpoint, drain.route && "route " + drain.route];
  return place.filter(Boolean).join(" of ") || "the gateway";
}

function showDrains(drains) {
  $("#drains").hidden = drains.length === 0;
  renew($("#drains ul"), drains.map((drain) => {
    const undo = make("button", { type: "button", className: "small", textContent: "Undo", disabled: drain.stop });
    undo.onclick = () => act(async () => {
      const query = new URLSearchParams(Object.entries({ route: drain.route, endpoint: drain.endpoint }).filter(([, value]) => value));
      await json("DELETE", "/v1/drain" + (query.size ? "?" + query : ""));
      notice(drainName(drain) + " takes sessions again", false);
    });
    const bar = make("progress", { max: Math.max(1, drain.closed + drain.left), value: drain.closed });
    bar.setAttribute("aria-label", "told to leave");
    const text = `${drainName(drain)}: ${sessionsOf(drain.closed)} told, ${count(drain.left)} left, since ${span(drain.age_seconds)}${drain.done ? ", done" : ""}`;
    return make("li", { key: drainName(drain) }, make("span", { textContent: text }), bar, undo);
  }));
}

function showSessions(body) {
  const seen = new Map(), at = performance.now();
  renew($("#sessions tbody"), body.sessions.map((session) => {
    const moved = session.bytes_in + session.bytes_out, last = lastSessions.get(session.id);
    seen.set(session.id, { moved, at });
    const pace = last ? bytes((moved - last.moved) / ((at - last.at) / 1000)) + "/s" : "";
    const engines = [...new Set(Object.values(session.engine))].join(" / ");
    const state = [...session.paused.map((way) => "paused " + way.replace("_", " ")), ...(session.half_closed ? ["half closed"] : [])];
    const open = make("button", { type: "button", className: "link", textContent: session.id });
    open.onclick = () => openSession(session.id);
    const cell = (text, className = "") => make("td", { textContent: text ?? "", className });
    return make("tr", { key: session.id }, make("td", {}, open), cell(session.route), cell(session.client_addr), cell(session.backend), cell(session.mode),
      cell(engines), cell(span(session.age_seconds), "n"), cell(bytes(session.bytes_in), "n"), cell(bytes(session.bytes_out), "n"),
      cell(pace, "n"), cell(state.join(", "), "warm"));
  }));
  lastSessions = seen;
  const skipped = (cursors.length - 1) * PAGE_SIZE;
  $("#shown").textContent = body.sessions.length ? `${count(skipped + 1)} to ${count(skipped + body.sessions.length)}` : "none that fit";
  $("#first").hidden = cursors.length === 1;
  $("#next").hidden = !body.cursor;
  $("#next").onclick = () => { cursors.push(body.cursor); refresh(); };
}

function sessionsPath() {
  const query = new URLSearchParams({ limit: PAGE_SIZE });
  for (const [name, value] of new FormData($("#filter"))) if (value.trim()) query.set(name, value.trim());
  if (cursors.at(-1)) query.set("cursor", cursors.at(-1));
  return "/v1/sessions?" + query;
}

async function refresh() {
  if (refreshing) return;
  refreshing = true;
  try {
    const health = await (await call("GET", "/readyz")).json();
    $("#state").dataset.state = health.ready ? "ready" : "unready";
    $("#state").textContent = health.ready ? "ready" : health.reasons.join("; ");
    const metrics = await call("GET", "/metrics");
    if (metrics.ok) showMetrics(parse(await metrics.text()));
    routes = (await json("GET", "/v1/routes")).routes;
    const { drains } = await json("GET", "/v1/drain");
    showRoutes(drains);
    showDrains(drains);
    if ($("#draining").open) planned();
    try {
      showSessions(await json("GET", sessionsPath()));
      $("#shown").classList.remove("bad");
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      $("#shown").textContent = error.message + ": " + error.hint;
      $("#shown").classList.add("bad");
    }
    if (selected) await showSession();
  } catch (error) {
    $("#state").dataset.state = "gone";
    $("#state").textContent = error instanceof Refused ? error.message : "the gateway does not answer";
  } finally {
    refreshing = false;
  }
}

async function act(work) {
  try {
    await work();
  } catch (error) {
    complain(error);
  }
  refresh();
}

// --- One session ---

async function showSession() {
  let session;
  try {
    session = await json("GET", "/v1/sessions/" + encodeURIComponent(selected));
  } catch (error) {
    if (error.status !== 404) throw error;
    pairs($("#known"), [["it has ended", ""]]);
    $("#kill").hidden = true;
    return;
  }
  const rows = [];
  for (const [name, value] of Object.entries(session)) {
    if (name === "directions" || value === null || (Array.isArray(value) && !value.length)) continue;
    const text = name === "engine" ? Object.entries(value).map(([way, engine]) => way.replace("_", " ") + ": " + engine).join(", ")
      : name.startsWith("bytes") ? bytes(value) : name === "age_seconds" ? span(value) : String(value);
    rows.push([name.replaceAll("_", " "), text]);
  }
  for (const [way, counts] of Object.entries(session.directions)) {
    const parts = ["splice", "copy", "uring"].filter((engine) => counts[engine]).map((engine) => `${engine} ${bytes(counts[engine])}`);
    rows.push([way.replace("_", " "), [...parts, `paused ${count(counts.paused)} times`, ...counts.fallback].join(", ")]);
  }
  pairs($("#known"), rows);
}

function openSession(id) {
  selected = id;
  $("#session-title").textContent = "Session " + id;
  $("#kill").hidden = false;
  $("#lines").hidden = true;
  $("#lines").replaceChildren();
  $("#session").showModal();
  act(showSession);
}

function tapLine(event) {
  const arrow = { to_upstream: "→", to_downstream: "←" }[event.direction] ?? " ";
  const time = event.at_ms === undefined ? "" : (event.at_ms / 1000).toFixed(3);
  const rest = Object.entries(event).filter(([name]) => !["event", "direction", "at_ms"].includes(name))
    .map(([name, value]) => `${name}=${typeof value === "object" ? JSON.stringify(value) : value}`);
  return [time.padStart(9), arrow, event.event.padEnd(9), ...rest].join(" ");
}

async function tap(preview) {
  stopTap();
  const mine = tapping = new AbortController();
  const list = $("#lines");
  list.replaceChildren();
  list.hidden = false;
  $("#stop").hidden = false;
  try {
    const query = preview ? "?preview=" + preview : "";
    const answer = await call("GET", `/v1/sessions/${encodeURIComponent(selected)}/tap${query}`, mine.signal);
    if (!answer.ok) throw new Refused(answer.status, await answer.json());
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      const isAtEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 4;
      list.append(...lines.filter(Boolean).slice(-TAP_LINES).map((line) => make("li", { textContent: tapLine(JSON.parse(line)) })));
      while (list.childElementCount > TAP_LINES) list.firstElementChild.remove();
      if (isAtEnd) list.scrollTop = list.scrollHeight;
    }
  } catch (error) {
    if (error.name !== "AbortError") list.append(make("li", { className: "bad", textContent: [error.message, error.hint].filter(Boolean).join(": ") }));
  }
  if (tapping === mine) stopTap();
}

function stopTap() {
  tapping?.abort();
  tapping = null;
  $("#stop").hidden = true;
}

function confirmed(title, text, button) {
  return new Promise((answer) => {
    const dialog = $("#sure");
    $("#sure-title").textContent = title;
    $("#sure-text").textContent = text;
    $("#yes").textContent = button;
    $("#yes").onclick = () => { dialog.returnValue = "yes"; dialog.close("yes"); };
    dialog.onclose = () => answer(dialog.returnValue === "yes");
    dialog.returnValue = "";
    dialog.showModal();
  });
}

// --- Drain and reload ---

function targets() {
  const found = [{ name: "the whole gateway", sessions: routes.reduce((sum, route) => sum + route.sessions_open, 0), query: {} }];
  for (const route of routes) {
    found.push({ name: "route " + route.name, sessions: route.sessions_open, query: { route: route.name } });
  }
  for (const route of routes) {
    for (const { backend, sessions } of route.endpoints) {
      found.push({ name: `endpoint ${backend} of route ${route.name}`, sessions, query: { route: route.name, endpoint: backend } });
    }
  }
  return found;
}

function planned() {
  const form = $("#draining form").elements;
  const target = targets().find(({ name }) => name === form.what.value);
  const isAll = target && !Object.keys(target.query).length;
  $("#stops").hidden = !isAll;
  if (!target) {
    $("#plan").textContent = "It is not configured any more.";
    return null;
  }
  const query = new URLSearchParams(target.query);
  if (form.over.value.trim()) query.set("over", form.over.value.trim());
  if (form.rate.value.trim()) query.set("rate", form.rate.value.trim());
  if (isAll) query.set("stop", form.stop.checked ? "true" : "false");
  const over = form.over.value.trim() || "the configured drain time", rate = form.rate.value.trim().replace(/\/s$/, "");
  const text = [
    `${sessionsOf(target.sessions)} ${target.sessions === 1 ? "is" : "are"} told to leave, each at a random moment within ${over}, ` +
      `${rate === "off" ? "however many that is" : `no more than ${rate || "the configured number"}`} per second.`,
    `Inspected sessions hear Close ${isAll ? 1001 : 1012} where a frame ends, opaque ones the end of the stream; who stays beyond the deadline is reset.`,
    isAll ? (form.stop.checked ? "Nothing new is accepted, and the process ends with its last session. This cannot be undone."
      : "New sessions are refused with 503 and Retry-After until the drain is undone.")
      : target.query.endpoint ? "New sessions go to the other endpoints, or are refused where there is none, until the drain is undone."
        : "New sessions of this route are refused with 503 and Retry-After until the drain is undone.",
  ];
  // It is read out when it changes, and is looked at anew every second.
  const whole = text.join(" ");
  if ($("#plan").textContent !== whole) $("#plan").textContent = whole;
  return query;
}

function openDrain(name) {
  const select = $("#draining form").elements.what;
  select.replaceChildren(...targets().map((target) => make("option", { value: target.name, textContent: target.name })));
  if (name) select.value = name;
  planned();
  $("#draining").showModal();
}

$("#drain").onclick = () => openDrain();
$("#draining form").oninput = planned;
$("#draining form").onsubmit = (event) => {
  event.preventDefault();
  const query = planned();
  if (!query) return;
  $("#draining").close();
  act(async () => {
    const drain = await json("POST", "/v1/drain?" + query);
    notice(`${drainName(drain)} drains: ${sessionsOf(drain.left)} to go`, false);
  });
};
$("#reload").onclick = () => act(async () => {
  const { generation, routes: changed, listeners, needs_restart } = await json("POST", "/v1/reload");
  const parts = Object.entries({ ...changed, ...listeners, "needs a restart": needs_restart })
    .filter(([, names]) => names.length).map(([what, names]) => `${what}: ${names.join(", ")}`);
  notice(`reloaded, generation ${generation}\n${parts.join("\n") || "nothing is different"}`, false);
});
$("#tap").onsubmit = (event) => { event.preventDefault(); tap(event.target.elements.preview.value); };
$("#stop").onclick = stopTap;
$("#session").onclose = () => { stopTap(); selected = null; };
$("#kill").onclick = async () => {
  const id = selected;
  const text = "Its client and its server see it end: with Close 1001 where it is inspected. Others go on.";
  if (await confirmed("End session " + id + "?", text, "End it")) {
    act(async () => { await json("DELETE", "/v1/sessions/" + encodeURIComponent(id)); });
  }
};
for (const button of document.querySelectorAll("dialog .close")) button.onclick = () => button.closest("dialog").close();
$("#filter").onsubmit = (event) => { event.preventDefault(); cursors = [""]; refresh(); };
$("#first").onclick = () => { cursors = [""]; refresh(); };

document.onvisibilitychange = () => { if (!document.hidden) refresh(); };
setInterval(() => { if (!document.hidden) refresh(); }, PERIOD_MS);
refresh();
