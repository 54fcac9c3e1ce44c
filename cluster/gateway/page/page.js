// What the group does, live. Everything comes from the gateway's own API; text goes in by textContent and never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const MOST_EVENTS = 1000;
const SHOWN_EVENTS = 300;
const LIVING = ["created", "running", "paused", "suspended"];

let jobs = [];            // as the last snapshot has them
let events = [];          // the newest last
let began = new Map();    // task id -> when it was last assigned
let last = null;          // number of the last event
let open = null;          // id of the job that is looked at
let offset = 0;           // seconds that the store's clock is ahead of ours

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

function drawn(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

function set(node, text) {
  if (node.textContent !== String(text)) node.textContent = text;
}

// -- asking

function headers(more = {}) {
  const token = sessionStorage.getItem("token");
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

async function ask(path, method = "GET", body = undefined) {
  const options = { method, headers: headers(body === undefined ? {} : { "Content-Type": "application/json" }) };
  if (body !== undefined) options.body = JSON.stringify(body);
  const answer = await fetch(path, options);
  if (answer.status === 204) return null;
  const found = await answer.json();
  if (!answer.ok) {
    if (answer.status === 401) askForToken();
    throw new Error(found.detail || answer.statusText);
  }
  return found;
}

function say(text, bad = false) {
  $("said").textContent = text;
  $("said").classList.toggle("bad", bad);
}

async function act(what, call) {
  try {
    await call();
    say(what);
  } catch (error) {
    say(`${what}: ${error.message}`, true);
  }
}

function askForToken() {
  if ($("token").hidden) {
    $("token").hidden = false;
    $("secret").focus();
  }
}

$("token").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("secret").value.trim());
  $("secret").value = "";
  $("token").hidden = true;
  wake();
});

// -- listening: server-sent events by fetch, which can send a token

let wake = () => {};

async function listen() {
  let pause = 500;
  for (;;) {
    let why = "the gateway is away";
    try {
      const more = { Accept: "text/event-stream" };
      if (last) more["Last-Event-ID"] = last;
      const answer = await fetch(`/events?backlog=${MOST_EVENTS}`, { headers: headers(more), cache: "no-store" });
      if (answer.status === 401) {
        why = "a token is needed";
        askForToken();
      } else if (!answer.ok) {
        why = (await answer.json()).detail;
      } else {
        pause = 500;
        state("live", "live");
        await read(answer.body.getReader());
      }
    } catch (error) {
      if (!(error instanceof TypeError)) console.error(error);
    }
    state("away", `${why}; trying again`);
    await new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, pause);
    });
    pause = Math.min(10000, pause * 1.6);
  }
}

async function read(reader) {
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += decoder.decode(value, { stream: true });
    const parts = text.split("\n\n");
    text = parts.pop();
    let news = false;
    for (const part of parts) news = heard(part) || news;
    if (news) showEvents();
  }
}

function heard(part) {
  const fields = {};
  for (const line of part.split("\n")) {
    const at = line.indexOf(": ");
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 2);
  }
  if (fields.event === "snapshot") snapshot(JSON.parse(fields.data));
  if (fields.event !== "journal") return false;
  const event = JSON.parse(fields.data);
  last = fields.id;
  offset = Math.max(offset, event.at - Date.now() / 1000);
  events.push(event);
  if (event.kind === "assign") began.set(event.subject, event.at);
  if (events.length > 2 * MOST_EVENTS) events = events.slice(-MOST_EVENTS);
  if (began.size > 20 * MOST_EVENTS) began = new Map([...began].slice(-10 * MOST_EVENTS));
  return true;
}

function state(name, text) {
  $("state").className = name;
  set($("state"), text);
}

// -- what is shown

function snapshot(found) {
  if (found.away) {
    state("away", found.away);
    return;
  }
  state("live", "live");
  jobs = found.jobs;
  showJobs();
  showMembers(found.members);
  showQueues(found.queues);
  if (open !== null) look();
}

// Bring the rows of a table in line with a list, keeping what has the focus.
function rows(body, list, key, make, update) {
  const known = new Map([...body.children].map((row) => [row.dataset.key, row]));
  list.forEach((one, position) => {
    let row = known.get(key(one));
    if (row === undefined) {
      row = make(one);
      row.dataset.key = key(one);
    }
    known.delete(key(one));
    update(row, one);
    if (body.children[position] !== row) {
      const focused = document.activeElement === row;
      body.insertBefore(row, body.children[position] || null);
      if (focused) row.focus();
    }
  });
  for (const row of known.values()) row.remove();
  const section = body.closest("section");
  if (section) section.querySelector(".empty").hidden = list.length > 0;
}

function cells(count) {
  return Array.from({ length: count }, () => element("td"));
}

function showJobs() {
  const wanted = $("find").value.toLowerCase();
  const inState = $("in-state").value;
  const list = jobs.filter(
    (job) =>
      (!inState || job.state === inState) &&
      (!wanted || `${job.id} ${job.name} ${job.operation} ${job.description}`.toLowerCase().includes(wanted)),
  );
  const body = document.querySelector("#jobs tbody");
  rows(body, list, (job) => job.id, makeJob, updateJob);
  set(document.querySelector("#tab-jobs b"), jobs.filter((job) => LIVING.includes(job.state)).length || "");
  if (body.children.length && !body.querySelector("[tabindex='0']")) body.children[0].tabIndex = 0;
}

function makeJob(job) {
  const row = element("tr", { tabIndex: -1 }, ...cells(6));
  row.children[0].append(element("span"));
  row.children[1].append(element("span"), element("span", { className: "detail" }));
  row.children[2].append(makeBar());
  row.children[3].className = "number";
  row.children[5].className = "id";
  row.addEventListener("click", () => look(job.id, true));
  row.addEventListener("focus", () => {
    for (const other of row.parentElement.querySelectorAll("[tabindex='0']")) other.tabIndex = -1;
    row.tabIndex = 0;
  });
  return row;
}

function updateJob(row, job) {
  const [shown, what, bar, inputs, since, id] = row.children;
  shown.firstChild.className = `state ${job.state}`;
  set(shown.firstChild, job.state);
  set(what.children[0], job.name || job.operation);
  set(what.children[1], [job.name ? job.operation : "", job.description, job.reason].filter(Boolean).join(" - "));
  updateBar(bar.firstChild, job);
  set(inputs, counted(job));
  set(since, clock(job.created));
  set(id, job.id);
  row.classList.toggle("open", job.id === open);
  row.setAttribute("aria-label", `job ${job.name || job.operation}, ${job.state}, ${counted(job)}`);
}

function counted(job) {
  return `${job.done}${job.failed ? ` + ${job.failed} failed` : ""} / ${job.total}`;
}

function makeBar() {
  return element("div", { className: "bar" }, element("i"), element("i"));
}

function updateBar(bar, job) {
  const share = (count) => `${job.total ? (100 * count) / job.total : job.ended ? 100 : 0}%`;
  bar.classList.toggle("busy", LIVING.includes(job.state));
  bar.children[0].style.width = share(job.done);
  bar.children[1].style.width = job.total ? share(job.failed) : "0";
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
}

function showMembers(found) {
  set($("group"), found.group);
  document.title = `cluster ${found.group}`;
  rows(
    document.querySelector("#members tbody"),
    found.members,
    (member) => member.node,
    () => {
      const row = element("tr", {}, ...cells(7));
      row.children[2].append(element("span"));
      row.children[6].className = "number";
      return row;
    },
    (row, member) => {
      const [node, role, shown, busy, queues, host, pid] = row.children;
      set(node, member.node);
      set(role, member.node === found.leader ? `${member.role}, leads` : member.role);
      shown.firstChild.className = `state ${member.state}`;
      set(shown.firstChild, member.state);
      set(busy, member.slots ? `${member.running} of ${member.slots}` : "");
      set(queues, member.queues.join(", "));
      set(host, member.host);
      set(pid, member.pid);
    },
  );
  const workers = found.members.filter((member) => member.role === "worker");
  set(document.querySelector("#tab-members b"), found.members.length || "");
  totals({
    workers: workers.length,
    slots: found.slots,
    running: workers.reduce((sum, member) => sum + member.running, 0),
  });
}

const shownTotals = {};

function totals(more) {
  Object.assign(shownTotals, more);
  for (const [name, count] of Object.entries(shownTotals)) {
    let pair = $("totals").querySelector(`[data-name="${name}"]`);
    if (!pair) {
      pair = element("div", {}, element("dt", { textContent: name }), element("dd"));
      pair.dataset.name = name;
      $("totals").append(pair);
    }
    set(pair.children[1], count);
  }
}

let deadCount = -1;

function showQueues(found) {
  rows(
    document.querySelector("#queues tbody"),
    found.queues,
    (queue) => queue.name,
    (queue) => {
      const row = element("tr", {}, ...cells(4));
      row.children[2].className = "number";
      const button = element("button");
      button.addEventListener("click", () => {
        const paused = button.textContent === "Pause";
        act(`queue ${queue.name} is ${paused ? "paused" : "resumed"}`, () =>
          ask(`/queues/${encodeURIComponent(queue.name)}`, "PATCH", { paused }),
        );
      });
      row.children[3].append(button);
      return row;
    },
    (row, queue) => {
      set(row.children[0], queue.paused ? `${queue.name} (paused)` : queue.name);
      set(row.children[1], Object.entries(queue.tasks).map(([name, count]) => `${count} ${name}`).join(", "));
      set(row.children[2], queue.max_waiting || "");
      set(row.children[3].firstChild, queue.paused ? "Resume" : "Pause");
    },
  );
  set(document.querySelector("#tab-queues b"), found.queues.length || "");
  const count = (name) => found.queues.reduce((sum, queue) => sum + (queue.tasks[name] || 0), 0);
  totals({ waiting: count("ready") + count("scheduled") + count("blocked") + count("held"), done: count("done") });
  const dead = count("dead");
  set(document.querySelector("#tab-tasks b"), dead || "");
  if (dead !== deadCount) {
    deadCount = dead;
    showDead();
  }
}

async function showDead() {
  let found;
  try {
    found = (await ask("/dead-letters?limit=200")).tasks;
  } catch (error) {
    say(`dead letters: ${error.message}`, true);
    return;
  }
  $("replay-all").disabled = found.length === 0;
  rows(
    document.querySelector("#tasks tbody"),
    found,
    (task) => task.id,
    (task) => {
      const row = element("tr", {}, ...cells(6));
      row.children[1].append(element("span"));
      row.children[2].className = "number";
      row.children[4].className = "id";
      const button = element("button", { textContent: "Replay" });
      button.addEventListener("click", () =>
        act(`task ${task.id} is ready again`, () => ask(`/tasks/${encodeURIComponent(task.id)}/replay`, "POST")),
      );
      row.children[5].append(button);
      return row;
    },
    (row, task) => {
      const error = task.error || {};
      set(row.children[0], task.operation);
      set(row.children[1].firstChild, `${error.kind || ""}: ${error.message || ""}`);
      row.children[1].title = error.traceback || "";
      set(row.children[2], task.attempts);
      set(row.children[3], error.worker || task.worker);
      set(row.children[4], task.id);
    },
  );
}

$("replay-all").addEventListener("click", () =>
  act("all dead letters are ready again", () => ask("/dead-letters", "POST", { all: true })),
);

function showEvents() {
  if ($("events").hidden) return;
  const wanted = $("kinds").value.toLowerCase();
  const found = [];
  for (let at = events.length - 1; at >= 0 && found.length < SHOWN_EVENTS; at -= 1) {
    const one = events[at];
    if (!wanted || `${one.kind} ${one.subject} ${one.by} ${one.detail}`.toLowerCase().includes(wanted)) found.push(one);
  }
  const list = $("events").querySelector("ol");
  rows(
    list,
    found,
    (event) => event.seq,
    (event) =>
      element(
        "li",
        {},
        element("span", { textContent: clock(event.at) }),
        element("b", { textContent: event.kind }),
        element("div", { textContent: `${event.subject} ` }, element("span", { textContent: [event.by && `by ${event.by}`, event.detail].filter(Boolean).join(" ") })),
      ),
    () => {},
  );
}

// -- one job

let lookedAt = "";  // id and version of what is shown
let asking = false;

async function look(id = open, focus = false) {
  const changed = id !== open;
  open = id;
  if (focus) {
    $("job").hidden = false;
    document.body.classList.add("looking");
    $("job").focus();
  }
  if (changed) {
    lookedAt = "";
    for (const button of document.querySelectorAll("#acts [data-signal], #again")) button.disabled = true;
    for (const row of document.querySelectorAll("#jobs tbody tr")) row.classList.toggle("open", row.dataset.key === id);
  }
  const known = jobs.find((job) => job.id === id);
  if (asking || (known && lookedAt === `${id} ${known.version}` && !LIVING.includes(known.state))) return;
  asking = true;
  try {
    const path = encodeURIComponent(id);
    const job = await ask(`/jobs/${path}`);
    const tasks = await ask(`/tasks?limit=1000&job=${path}`);
    const first = await ask(`/jobs/${path}/results?limit=100`);
    if (open === id) {
      showJob(job, tasks.tasks, first.results);
      lookedAt = `${id} ${job.version}`;
    }
  } catch (error) {
    if (open === id) say(`job ${id}: ${error.message}`, true);
  } finally {
    asking = false;
  }
  if (open !== null && open !== id) look();
}

function showJob(job, tasks, results) {
  set($("job-title"), job.name || job.operation || job.id);
  set($("job-detail"), [job.state, job.detail || job.reason].filter(Boolean).join(": "));
  if (!$("job-bar").firstChild) $("job-bar").append(makeBar());
  updateBar($("job-bar").firstChild, job);
  const ended = !LIVING.includes(job.state);
  for (const button of document.querySelectorAll("#acts [data-signal]")) {
    const resume = button.dataset.signal === "resume";
    const stopped = job.state === "paused" || job.state === "suspended";
    button.disabled = ended || (resume ? !stopped : button.dataset.signal === "pause" && job.state !== "running");
  }
  $("again").disabled = !ended || job.failed === 0 || job.class !== "";
  const facts = {
    id: job.id,
    inputs: counted(job),
    queue: job.queue,
    created: new Date(job.created * 1000).toLocaleString(),
    ended: job.ended ? `${new Date(job.ended * 1000).toLocaleString()}, after ${(job.ended - job.created).toFixed(1)} s` : "",
    by: job.by,
    description: job.description,
    result: job.result === null ? "" : JSON.stringify(job.result),
    error: job.error ? `${job.error.kind}: ${job.error.message}` : "",
  };
  $("facts").replaceChildren(
    ...Object.entries(facts)
      .filter(([, value]) => value !== "")
      .flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]),
  );
  $("timeline").replaceChildren(timeline(job, tasks));
  set($("shown"), results.length < job.total ? `the first ${results.length} of ${job.total}` : "");
  rows(
    $("results"),
    results,
    (one) => `${job.id} ${one.index}`,
    (one) => element("tr", {}, element("td", { className: "number", textContent: one.index }), element("td", {}, ...outcome(one))),
    () => {},
  );
}

function outcome(one) {
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const found = [];
  if (one.error) found.push(element("pre", { className: "bad", textContent: `${one.error.kind}: ${one.error.message}` }));
  if (one.value && typeof one.value === "object" && "stdout" in one.value) {
    const { exit, stdout, stderr, duration } = one.value;
    found.push(element("span", { className: "detail", textContent: `exit ${exit}, ${Number(duration).toFixed(2)} s` }));
    if (stdout) found.push(element("pre", { textContent: stdout }));
    if (stderr) found.push(element("pre", { className: "bad", textContent: stderr }));
  } else if ("value" in one) {
    found.push(element("pre", { textContent: text(one.value) }));
  }
  return found;
}

// Lanes for each worker, as many as it has run tasks at a time; a bar for each task, from when it was given to its end.
function timeline(job, tasks) {
  const from = job.created;
  const to = Math.max(job.ended || Date.now() / 1000 + offset, from + 0.1);
  const bars = tasks
    .filter((task) => task.worker || began.has(task.id))
    .map((task) => ({ task, worker: task.worker || "...", start: began.get(task.id) || task.created, end: task.ended || to }))
    .sort((one, other) => one.start - other.start);
  const workers = new Map();  // name -> when each of its lanes is free
  for (const bar of bars) {
    const lanes = workers.get(bar.worker) || [];
    workers.set(bar.worker, lanes);
    const free = lanes.findIndex((end) => end <= bar.start + 0.02);
    bar.lane = free < 0 ? lanes.length : free;
    lanes[bar.lane] = bar.end;
  }
  const width = 600;
  const svg = drawn("svg", { role: "img" });
  svg.append(drawn("title", {}, `${bars.length} tasks on ${workers.size} workers in ${(to - from).toFixed(1)} s`));
  const x = (at) => Math.min(width, Math.max(0, (width * (at - from)) / (to - from)));
  let y = 0;
  for (const name of [...workers.keys()].sort()) {
    svg.append(drawn("text", { x: 0, y: y + 10 }, name));
    y += 14;
    workers.get(name).forEach((_, lane) => svg.append(drawn("rect", { class: "lane", x: 0, y: y + 10 * lane, width, height: 8 })));
    for (const { task, worker, lane, start, end } of bars) {
      if (worker !== name) continue;
      const left = x(start);
      const bar = drawn("rect", {
        class: task.state,
        x: left,
        y: y + 10 * lane,
        width: Math.max(1.5, x(end) - left - 1),
        height: 8,
      });
      const inputs = task.index === null ? "" : `, inputs ${task.index} to ${task.index + task.weight - 1}`;
      bar.append(drawn("title", {}, `${task.operation}${inputs}: ${task.state}`));
      svg.append(bar);
    }
    y += 10 * workers.get(name).length + 4;
  }
  svg.append(drawn("text", { x: 0, y: y + 12 }, bars.length ? "0 s" : "no task has run yet"));
  svg.append(drawn("text", { x: width, y: y + 12, "text-anchor": "end" }, `${(to - from).toFixed(1)} s`));
  svg.setAttribute("viewBox", `0 0 ${width} ${y + 16}`);
  return svg;
}

function closeJob() {
  const row = document.querySelector(`#jobs tr[data-key="${CSS.escape(open || "")}"]`);
  open = null;
  $("job").hidden = true;
  document.body.classList.remove("looking");
  if (row) {
    row.classList.remove("open");
    row.focus();
  }
}

for (const button of document.querySelectorAll("#acts [data-signal]")) {
  const kind = button.dataset.signal;
  const name = button.textContent;
  button.addEventListener("click", () => {
    if (kind === "terminate" && !sure(button, name)) return;
    const id = open;
    act(`job ${id}: ${kind}`, async () => {
      const reply = await ask(`/jobs/${encodeURIComponent(id)}/signal`, "POST", { type: kind });
      if (reply.status !== "ok") throw new Error(reply.status);
      if (open !== id) return;  // closed meanwhile, or another one is looked at
      lookedAt = "";
      look();
    });
  });
}

$("again").addEventListener("click", () => {
  const id = open;
  act("what failed is submitted again", async () => {
    const taken = await ask(`/jobs/${encodeURIComponent(id)}/retry`, "POST");
    if (open === id) look(taken.id);
  });
});

$("forget").addEventListener("click", () => {
  if (!sure($("forget"), "Forget")) return;
  const id = open;
  act(`job ${id} is forgotten`, async () => {
    await ask(`/jobs/${encodeURIComponent(id)}`, "DELETE");
    if (open === id) closeJob();
  });
});

// What cannot be undone takes a second click.
function sure(button, name) {
  if (button.classList.contains("sure")) {
    button.classList.remove("sure");
    button.textContent = name;
    return true;
  }
  button.classList.add("sure");
  button.textContent = `${name}: sure?`;
  setTimeout(() => {
    button.classList.remove("sure");
    button.textContent = name;
  }, 4000);
  return false;
}

$("close").addEventListener("click", closeJob);
$("find").addEventListener("input", showJobs);
$("in-state").addEventListener("change", showJobs);
$("kinds").addEventListener("input", showEvents);

// -- keys

const tabs = [...document.querySelectorAll("[role=tab]")];

function choose(tab, focus = true) {
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", chosen);
    one.tabIndex = chosen ? 0 : -1;
    $(one.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (focus) tab.focus();
  showEvents();
}

for (const tab of tabs) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) choose(tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length]);
  });
}

document.querySelector("#jobs tbody").addEventListener("keydown", (event) => {
  const row = event.target.closest("tr");
  if (event.target !== row) return;
  if (event.key === "Enter" || event.key === " ") {
    look(row.dataset.key, true);
  } else if (event.key === "ArrowDown" && row.nextElementSibling) {
    row.nextElementSibling.focus();
  } else if (event.key === "ArrowUp" && row.previousElementSibling) {
    row.previousElementSibling.focus();
  } else {
    return;
  }
  event.preventDefault();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && open !== null) closeJob();
});

setInterval(() => {
  if (open !== null && !document.hidden) look();
}, 1000);

listen();
