// The console page of `dev`: functions, an event to send, requests, one in detail.
//
// Everything shown comes from handlers and callers, so text is only ever set as text: no
// markup is built from strings. Changes arrive as server-sent events; what the page holds
// is the same as the journal's summaries, and the details of the chosen request.

const LOG_LINES_SHOWN = 2000;
const BODY_SHOWN = 200_000; // characters
// A line of the text format: time, request id, level. The first two are told elsewhere.
const RECORD = /^\d{4}-\S+Z\t[^\t]*\t([A-Z]+)\t(.*)$/s;
const PLATFORM = /^(START|END|REPORT) RequestId: /;
const NARROW = "(max-width: 760px)"; // as in the style sheet
const EARLIER_SHOWN = 10; // events that were sent before

/** Phases of a request in their order: class, name, and what it means. */
const PHASES = {
  queue: ["Queue", "waits for an environment"],
  start: ["Start", "the environment starts"],
  ready: ["Ready", "the process loads the module"],
  handler: ["Handler", "runs"],
  response: ["Response", "goes to the caller"],
  work: ["waitUntil", "work after the response"],
  cleanup: ["Cleanup", "the process ends, the next one starts"],
};

const state = {
  functions: [],
  records: new Map(),
  notices: [],
  url: "",
  canRecord: false,
  chosenFunction: "",
  chosen: "", // request id
  details: null, // of the chosen request, with its log
  samples: [],
  given: "{}", // the event as it was put into its field
};

// --- small tools ------------------------------------------------------------

/** Return the element with an id. */
function at(id) {
  return document.getElementById(id);
}

/** Make an element; its children are elements or text. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) {
      element.addEventListener(name.slice(2), value);
    } else if (value !== null && value !== false) {
      element.setAttribute(name, String(value));
    }
  }
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

/**
 * Show items in a list, each with a `data-key`. An item that is there stays, and only what
 * differs in it is changed: it keeps the focus, and a click on it is not lost because it
 * was replaced between the press and the release.
 */
function showItems(list, items) {
  const wanted = new Map(items.map((item) => [item.dataset.key, item]));
  const kept = new Map();
  for (const item of [...list.children]) {
    if (wanted.has(item.dataset.key)) kept.set(item.dataset.key, item);
    else item.remove();
  }
  let place = list.firstElementChild;
  for (const [key, item] of wanted) {
    const shown = kept.get(key);
    if (shown === undefined) list.insertBefore(item, place);
    else {
      adopt(shown, item);
      if (shown === place) place = place.nextElementSibling;
      else list.insertBefore(shown, place);
    }
  }
}

/** Make an element look like another one of the same make, whose listeners do the same. */
function adopt(element, model) {
  for (const { name } of [...element.attributes]) {
    if (!model.hasAttribute(name)) element.removeAttribute(name);
  }
  for (const { name, value } of model.attributes) {
    if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  }
  if (model.childElementCount === 0) {
    if (element.textContent !== model.textContent) {
      element.textContent = model.textContent;
    }
    return;
  }
  [...model.children].forEach((child, n) => adopt(element.children[n], child));
}

/** Ask the server; return its JSON, or throw an error with its own words. */
async function ask(path, options = {}) {
  const response = await fetch(`api/${path}`, options);
  const value = await response.json();
  if (!response.ok) {
    throw new Error(value.problem ?? `The server said ${response.status}`);
  }
  return value;
}

/** Return a length of time with three digits at most. */
function milliseconds(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms >= 1000) return `${(ms / 1000).toFixed(ms >= 10_000 ? 1 : 2)} s`;
  return ms >= 100
    ? `${Math.round(ms)} ms`
    : `${ms.toFixed(ms >= 10 ? 1 : 2)} ms`;
}

/** Return a size in the unit that fits. */
function bytes(count) {
  if (count < 1024) return `${count} B`;
  return count < 1024 * 1024
    ? `${(count / 1024).toFixed(1)} KB`
    : `${(count / 1024 / 1024).toFixed(1)} MB`;
}

/** Return JSON indented, or the text as it is. */
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** Return the object in a JSON text, or null. */
function objectIn(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" && !Array.isArray(value)
      ? value
      : null;
  } catch {
    return null;
  }
}

function announce(text) {
  at("announcer").textContent = text;
}

/** Do something later in this frame, once, however often it is asked for. */
function once(work) {
  let isPlanned = false;
  return () => {
    if (isPlanned) return;
    isPlanned = true;
    requestAnimationFrame(() => {
      isPlanned = false;
      work();
    });
  };
}

// --- functions and the event ------------------------------------------------

function showFunctions() {
  const list = at("functions");
  showItems(
    list,
    state.functions.map((one) => {
      const count = [...state.records.values()].filter((r) =>
        r.function === one.name
      ).length;
      const facts = [
        `${one.memoryMb} MB`,
        `${one.timeoutS} s`,
        count === 1 ? "1 request" : `${count} requests`,
      ];
      return make(
        "li",
        { "data-key": one.name },
        make(
          "button",
          {
            type: "button",
            "aria-pressed": one.name === state.chosenFunction,
            title: one.folder,
            onclick: () => chooseFunction(one.name),
          },
          make("span", { class: "name" }, one.name),
          make("span", { class: "facts" }, facts.join(" · ")),
        ),
      );
    }),
  );
  if (state.functions.length === 0) {
    list.append(
      make(
        "li",
        { class: "hint", "data-key": "" },
        "No function is served. Write one with “new”.",
      ),
    );
  }
  const example = state.functions.find((one) =>
    one.name === state.chosenFunction
  );
  at("example").textContent = example ? `curl ${example.url}` : "";
}

async function chooseFunction(name) {
  state.chosenFunction = name;
  showFunctions();
  try {
    state.samples = await ask(`functions/${encodeURIComponent(name)}/samples`);
  } catch {
    state.samples = [];
  }
  showSamples();
  // What a person has typed stays.
  if (at("event").value !== state.given) return;
  at("sample").value = state.samples.length > 0 ? "sample 0" : "";
  await takeSample();
}

/** Show what an event can start from: samples of the function, and events sent before. */
function showSamples() {
  const select = at("sample");
  const kept = select.value;
  const earlier = [...state.records.values()]
    .filter((record) => record.function === state.chosenFunction)
    .slice(-EARLIER_SHOWN)
    .reverse();
  const groups = [make("option", { value: "" }, "An empty event")];
  if (state.samples.length > 0) {
    groups.push(make(
      "optgroup",
      { label: "Samples" },
      ...state.samples.map((sample, n) =>
        make("option", { value: `sample ${n}` }, sample.name)
      ),
    ));
  }
  if (earlier.length > 0) {
    groups.push(make(
      "optgroup",
      { label: "Sent before" },
      ...earlier.map((record) =>
        make(
          "option",
          { value: `request ${record.id}` },
          `#${record.number} ${what(record)}`,
        )
      ),
    ));
  }
  select.replaceChildren(...groups);
  const values = [...select.options].map((option) => option.value);
  select.value = values.includes(kept) ? kept : "";
}

async function takeSample() {
  const [kind, key] = at("sample").value.split(" ");
  if (kind === "sample") setEvent(state.samples[Number(key)].event);
  else if (kind === "request") {
    const details = await ask(`requests/${encodeURIComponent(key)}`);
    setEvent(details.event.text ?? "{}");
  } else setEvent("{}");
}

function setEvent(text) {
  at("event").value = state.given = pretty(text);
  checkEvent();
}

/** Check the event while it is typed; return whether it is JSON. */
function checkEvent() {
  let problem = "";
  try {
    JSON.parse(at("event").value);
  } catch (error) {
    problem = `Not JSON: ${error.message}`;
  }
  at("event").setAttribute("aria-invalid", String(problem !== ""));
  at("event-problem").textContent = problem;
  return problem === "";
}

async function send(event) {
  event?.preventDefault();
  if (!checkEvent()) {
    at("event").focus();
    return;
  }
  const name = state.chosenFunction;
  if (name === "") return;
  try {
    const options = { method: "POST", body: at("event").value };
    const { id } = await ask(
      `functions/${encodeURIComponent(name)}/send`,
      options,
    );
    await choose(id);
  } catch (error) {
    at("event-problem").textContent = error.message;
  }
}

// --- requests ---------------------------------------------------------------

/** Return what was asked for, in a few words. */
function what(record) {
  if (record.method !== null && record.target !== null) {
    return `${record.method} ${record.target}`;
  }
  const names = {
    invoke: "Invoke",
    stream: "Invoke, streamed",
    async: "Invoke, async",
  };
  return record.replayOf === null
    ? names[record.source] ?? "Event"
    : "Event, sent again";
}

/** Return what was asked for, and of which function if there are several. */
function titleOf(record) {
  return state.functions.length > 1
    ? `${record.function} · ${what(record)}`
    : what(record);
}

/** Return the outcome as a short text and a class. */
function mark(record) {
  if (record.outcome === null) {
    return [record.phase === "waiting" ? "waits" : "runs", "open"];
  }
  if (!record.ok) {
    return [record.outcome === "timeout" ? "timeout" : "error", "bad"];
  }
  if (record.method === null || record.status === null) return ["ok", ""];
  return [String(record.status), record.status >= 500 ? "bad" : ""];
}

function clock(record) {
  const time = new Date(record.receivedEpochMs);
  return time.toLocaleTimeString([], { hour12: false });
}

/** Tell whether the process was ready before the event, in an environment as well. */
function isWarm(record) {
  return record.measures?.warm === true && record.initMs === null;
}

/** Return how the process came to be, as one line. */
function howStarted(record) {
  const parts = [];
  const measures = record.measures;
  if (measures?.start) {
    parts.push(measures.start === "fork" ? "forked" : "started");
    if (record.initMs !== null) {
      parts.push(`in a new environment, ${milliseconds(record.initMs)}`);
    } else {
      parts.push(isWarm(record) ? "ready before the event" : "for this event");
    }
  }
  if (!record.ok && record.errorType) parts.unshift(record.errorType);
  return parts.join(" · ");
}

function showRow(record) {
  const [text, kind] = mark(record);
  const row = make(
    "button",
    {
      type: "button",
      "data-id": record.id,
      "aria-current": record.id === state.chosen,
      onclick: () => choose(record.id),
    },
    make("span", { class: `mark ${kind}` }, text),
    make("span", { class: "what" }, titleOf(record)),
    make("span", { class: "took" }, milliseconds(record.times.answeredMs)),
    make("span", { class: "when" }, clock(record)),
    make("span", { class: "how" }, howStarted(record) || "\u00a0"),
  );
  return make("li", { "data-key": record.id }, row);
}

const showRequests = once(() => {
  const records = [...state.records.values()].reverse();
  const list = at("requests");
  showItems(list, records.map(showRow));
  at("requests-empty").hidden = records.length > 0;
  const warm = records.filter(isWarm).length;
  const measured = records.filter((record) => record.measures !== null).length;
  const left = records.reduce(
    (sum, r) => sum + (r.measures?.leftoverProcesses ?? 0),
    0,
  );
  const totals = [
    records.length === 1 ? "1 request" : `${records.length} requests`,
  ];
  if (measured > 0) totals.push(`${warm} of ${measured} warm`);
  if (left > 0) {
    totals.push(
      left === 1 ? "1 leftover process" : `${left} leftover processes`,
    );
  }
  at("totals").textContent = records.length > 0 ? totals.join(" · ") : "";
  showFunctions();
});

function rowOf(id) {
  return [...at("requests").querySelectorAll("button")]
    .find((button) => button.getAttribute("data-id") === id);
}

/** Show one request, and fetch what its summary does not have. */
async function choose(id) {
  state.chosen = id;
  state.details = null;
  showRequests();
  await fetchDetails();
  document.querySelector(".main").classList.add("open");
  if (matchMedia(NARROW).matches) at("details").focus();
}

// Whether details are on their way, and whether they are old when they arrive.
let isFetching = false;
let isOutdated = false;
// Lines that arrive meanwhile: details may be older than a line that comes before them.
const linesAhead = [];

/** Fetch the chosen request; one fetch at a time, or an older answer could come last. */
async function fetchDetails() {
  isOutdated = true;
  if (isFetching) return;
  isFetching = true;
  try {
    while (isOutdated) {
      isOutdated = false;
      await fetchOnce();
    }
  } finally {
    isFetching = false;
  }
}

async function fetchOnce() {
  const id = state.chosen;
  if (id === "") return;
  linesAhead.length = 0;
  try {
    const details = await ask(`requests/${encodeURIComponent(id)}`);
    if (id === state.chosen) {
      state.details = details;
      linesAhead.forEach(addLine);
    }
  } catch (error) {
    if (id !== state.chosen) return;
    state.details = null;
    at("details").replaceChildren(make("p", { class: "empty" }, error.message));
    return;
  }
  showDetails();
}

function close() {
  const id = state.chosen;
  state.chosen = "";
  state.details = null;
  document.querySelector(".main").classList.remove("open");
  showDetails();
  showRequests();
  requestAnimationFrame(() => {
    if (document.activeElement === document.body) rowOf(id)?.focus();
  });
}

// --- one request ------------------------------------------------------------

/** Return the phases of a request with their lengths in milliseconds. */
function phasesOf(record) {
  const { assignedMs, deliveredMs, firstByteMs, answeredMs, endedMs } =
    record.times;
  const measures = record.measures ?? {};
  const found = [];
  const add = (name, begin, end) => {
    if (begin !== null && end !== null && end - begin >= 0.01) {
      found.push([name, end - begin]);
    }
  };
  // A request waits in the queue while an environment starts for it.
  const startedMs = assignedMs === null
    ? null
    : Math.max(0, assignedMs - (record.initMs ?? 0));
  add("queue", 0, startedMs);
  add("start", startedMs, deliveredMs);
  if (deliveredMs === null) return found;
  // From the answer back: the runtime's own measures are closer than the times of calls.
  const end = answeredMs ?? firstByteMs;
  const handled = end === null || measures.handlerMs === undefined
    ? firstByteMs ?? answeredMs
    : Math.max(deliveredMs, end - (measures.postMs ?? 0));
  const begun = handled === null
    ? deliveredMs
    : Math.max(deliveredMs, handled - (measures.handlerMs ?? Infinity));
  add("ready", deliveredMs, begun);
  add("handler", begun, handled);
  add("response", handled, answeredMs);
  if (answeredMs === null) return found;
  const worked = Math.min(
    answeredMs + (measures.finishMs ?? 0),
    endedMs ?? Infinity,
  );
  add("work", answeredMs, worked);
  add("cleanup", worked, endedMs);
  return found;
}

function timeline(record) {
  const phases = phasesOf(record);
  if (phases.length === 0) {
    return make("p", { class: "hint" }, "Nothing has happened yet.");
  }
  const whole = phases.reduce((sum, [, ms]) => sum + ms, 0);
  const track = make("div", { class: "track", "aria-hidden": "true" });
  const legend = make("ul", { class: "legend" });
  for (const [name, ms] of phases) {
    const [title, meaning] = PHASES[name];
    const part = make("span", {
      class: name,
      title: `${title}: ${milliseconds(ms)}`,
    });
    part.style.flexGrow = String(Math.max(ms / whole, 0.004));
    track.append(part);
    legend.append(make(
      "li",
      { class: name, title: `${title} ${meaning}` },
      make("span", { class: "name" }, title),
      make("span", { class: "ms" }, milliseconds(ms)),
    ));
  }
  const { answeredMs, endedMs } = record.times;
  const sums = [];
  if (answeredMs !== null) {
    sums.push(`${milliseconds(answeredMs)} until the answer`);
  }
  if (endedMs !== null) {
    sums.push(`${milliseconds(endedMs - answeredMs)} after it`);
  }
  return make(
    "div",
    {},
    make("p", { class: "hint" }, sums.join(", ")),
    track,
    legend,
  );
}

function facts(pairs) {
  const list = make("dl", { class: "facts-table" });
  for (const [name, value] of pairs) {
    if (value === null || value === undefined || value === "") continue;
    list.append(make("dt", {}, name), make("dd", {}, String(value)));
  }
  return list;
}

function processFacts(record) {
  const measures = record.measures;
  const pairs = [["Environment", record.environment], [
    "Code version",
    record.code,
  ]];
  if (record.initMs !== null) {
    pairs.push(["Environment started in", milliseconds(record.initMs)]);
  }
  if (measures) {
    const start = measures.start === "fork"
      ? "forked from a loaded process"
      : "a process of its own start";
    pairs.push(
      ["Process", start],
      ["Was ready before the event", isWarm(record) ? "yes" : "no"],
      [
        "Loaded in",
        measures.readyMs === null ? null : milliseconds(measures.readyMs),
      ],
      [
        "Waited for its event",
        measures.idleMs === null ? null : milliseconds(measures.idleMs),
      ],
      [
        "Processor time",
        measures.cpuUserMs === null
          ? null
          : `${milliseconds(measures.cpuUserMs)} own, ${
            milliseconds(measures.cpuSystemMs)
          } system`,
      ],
      [
        "Memory of the process",
        measures.peakMemoryMB && `${measures.peakMemoryMB} MB`,
      ],
      [
        "Left behind",
        `${measures.leftoverProcesses} processes, ${measures.leftoverFiles} files (removed)`,
      ],
    );
  }
  if (record.maxMemoryMB !== null) {
    pairs.push([
      "Memory of the environment",
      `${record.maxMemoryMB} of ${record.memoryMb} MB`,
    ]);
  }
  pairs.push(["Tenant", record.tenantId], ["Trace", record.traceId]);
  return facts(pairs);
}

/** Return the parts of a result: status, headers and body, as a caller gets them. */
function resultOf(record) {
  const text = record.result.text;
  const http = text === undefined ? null : objectIn(text);
  if (record.status !== null && record.headers.length > 0) {
    return {
      status: record.status,
      headers: record.headers,
      body: bodyText(record, http),
    };
  }
  if (http !== null && typeof http.statusCode === "number") {
    const headers = Object.entries(http.headers ?? {}).map((
      [k, v],
    ) => [k, String(v)]);
    return { status: http.statusCode, headers, body: bodyText(record, http) };
  }
  return { status: null, headers: [], body: text ?? base64Note(record.result) };
}

/** Return the body in a result of the form that function URLs expect, else the result. */
function bodyText(record, http) {
  const isForm = http !== null && typeof http.statusCode === "number" &&
    !record.streamed;
  if (!isForm) return record.result.text ?? base64Note(record.result);
  const body = http.body ?? "";
  if (!http.isBase64Encoded) {
    return typeof body === "string" ? body : JSON.stringify(body);
  }
  try {
    const raw = Uint8Array.from(
      atob(body),
      (character) => character.charCodeAt(0),
    );
    return new TextDecoder("utf-8", { fatal: true }).decode(raw);
  } catch {
    return body;
  }
}

function base64Note(data) {
  return data.base64 ? `(not text; base64) ${data.base64}` : "";
}

function block(text, empty) {
  if (text === "") return make("p", { class: "hint" }, empty);
  const shown = pretty(text);
  const cut = shown.length > BODY_SHOWN
    ? `${shown.slice(0, BODY_SHOWN)}\n…`
    : shown;
  return make("pre", { tabindex: "0" }, cut);
}

function showResult(record) {
  const parts = [];
  if (record.error !== null) {
    const error = objectIn(record.error.text ?? "") ?? {};
    const title = [error.errorType ?? record.errorType, error.errorMessage]
      .filter((part) => part !== undefined && part !== null && part !== "")
      .join(": ");
    parts.push(make("p", { class: "banner" }, title || "The function failed"));
    const stack = Array.isArray(error.stackTrace)
      ? error.stackTrace.join("\n")
      : "";
    if (stack !== "") parts.push(make("pre", { tabindex: "0" }, stack));
  }
  if (record.outcome === null) {
    parts.push(make("p", { class: "hint" }, "No answer yet."));
  } else if (record.ok || record.resultBytes > 0) {
    const { status, headers, body } = resultOf(record);
    const line = [
      status === null ? null : `HTTP ${status}`,
      record.streamed ? "streamed" : null,
      bytes(record.resultBytes),
    ].filter((part) => part !== null);
    parts.push(make("p", { class: "hint above" }, line.join(" · ")));
    if (headers.length > 0) {
      const list = facts(headers);
      list.classList.add("headers");
      parts.push(
        make(
          "details",
          {},
          make(
            "summary",
            {},
            headers.length === 1 ? "1 header" : `${headers.length} headers`,
          ),
          list,
        ),
      );
    }
    parts.push(block(body, "The result is empty."));
  }
  return parts;
}

function logLine(line) {
  const ms = line.atMs === null ? "" : `${line.atMs.toFixed(0)} ms`;
  const [, level, text] = RECORD.exec(line.text) ?? [null, "", line.text];
  const isBad = level === "ERROR" || level === "FATAL";
  return make(
    "div",
    { class: PLATFORM.test(text) ? "dim" : isBad ? "bad" : "" },
    make("time", {}, ms),
    make("span", { class: "level" }, level === "INFO" ? "" : level),
    make("span", {}, text.replaceAll("\r", "\n")),
  );
}

function showLog(record) {
  if (record.log.length === 0) {
    return [make("p", { class: "hint" }, "Nothing was logged.")];
  }
  const lines = record.log.slice(-LOG_LINES_SHOWN).map(logLine);
  const log = make("div", {
    class: "code log",
    id: "log",
    tabindex: "0",
    role: "log",
  }, ...lines);
  const parts = [log];
  if (record.linesDropped > 0) {
    parts.push(
      make(
        "p",
        { class: "hint" },
        `${record.linesDropped} more lines were not kept.`,
      ),
    );
  }
  return parts;
}

function section(title, ...children) {
  return make(
    "section",
    { "aria-label": title },
    make("h3", {}, title),
    ...children,
  );
}

const showDetails = once(() => {
  const place = at("details");
  const record = state.details;
  if (record === null) {
    if (state.chosen === "") {
      const text = state.records.size > 0
        ? "Choose a request to see its result, its log and where its time went."
        : "What happens to a request appears here.";
      place.replaceChildren(make("p", { class: "empty" }, text));
    }
    return;
  }
  const [text, kind] = mark(record);
  const opened = [...place.querySelectorAll("details")].map((one) => one.open);
  const scrolled = place.scrollTop;
  const focused = document.activeElement?.id;
  place.replaceChildren(
    make(
      "header",
      {},
      make(
        "p",
        { class: "title" },
        make("span", { class: `mark ${kind}` }, text),
        what(record),
      ),
      make("p", { class: "id" }, `${record.function} · ${record.id}`),
      make(
        "div",
        { class: "actions" },
        make("button", {
          type: "button",
          class: "back",
          id: "back",
          onclick: close,
        }, "Back"),
        make(
          "button",
          { type: "button", id: "again", onclick: again },
          "Send again",
        ),
        make(
          "button",
          { type: "button", id: "edit", onclick: edit },
          "Edit the event",
        ),
        state.canRecord && record.times.endedMs !== null
          ? make(
            "button",
            { type: "button", id: "record", onclick: write },
            "Record",
          )
          : null,
        make("span", { class: "hint", id: "action-note", role: "status" }),
      ),
    ),
    section("Timeline", timeline(record)),
    section("Result", ...showResult(record)),
    section("Log", ...showLog(record)),
    section(
      "Event",
      block(
        record.event.text ?? base64Note(record.event),
        "The event is empty.",
      ),
    ),
    section("Process", processFacts(record)),
  );
  [...place.querySelectorAll("details")].forEach((one, n) =>
    one.open = opened[n] ?? false
  );
  place.scrollTop = scrolled;
  if (focused) at(focused)?.focus({ preventScroll: true });
});

function note(text) {
  const place = at("action-note");
  if (place !== null) place.textContent = text;
}

async function again() {
  try {
    const { id } = await ask(
      `requests/${encodeURIComponent(state.chosen)}/again`,
      {
        method: "POST",
      },
    );
    await choose(id);
  } catch (error) {
    note(error.message);
  }
}

function edit() {
  const details = state.details;
  if (details === null) return;
  if (details.function !== state.chosenFunction) {
    chooseFunction(details.function);
  }
  setEvent(details.event.text ?? "{}");
  if (matchMedia(NARROW).matches) close();
  at("event").focus();
}

async function write() {
  try {
    const path = `requests/${encodeURIComponent(state.chosen)}/record`;
    const { file } = await ask(path, { method: "POST" });
    note(`Recorded: ${file}`);
  } catch (error) {
    note(error.message);
  }
}

function showNotices() {
  const place = at("notices");
  const shown = state.notices.slice(-5).reverse();
  place.replaceChildren(...shown.map((notice) =>
    make(
      "pre",
      { class: notice.level === "error" ? "bad" : "" },
      `${notice.function ?? "dev"}: ${pretty(notice.text)}`,
    )
  ));
}

// --- changes ----------------------------------------------------------------

async function readAll() {
  const found = await ask("state");
  state.functions = found.functions;
  state.records = new Map(found.records.map((record) => [record.id, record]));
  state.notices = found.notices;
  state.canRecord = found.canRecord;
  state.url = found.url;
  showRequests();
  showNotices();
  if (!state.functions.some((one) => one.name === state.chosenFunction)) {
    state.chosenFunction = "";
    if (state.functions.length > 0) {
      await chooseFunction(state.functions[0].name);
    }
  }
  showSamples();
  if (state.chosen !== "") await fetchDetails();
  else showDetails();
  requestAnimationFrame(() => at("page").setAttribute("aria-busy", "false"));
}

function takeChange(message) {
  const change = JSON.parse(message.data);
  if (change.kind === "lost") readAll();
  else if (change.kind === "dropped") state.records.delete(change.id);
  else if (change.kind === "notice") {
    state.notices.push(change.notice);
    showNotices();
    readFunctions();
  } else if (change.kind === "log") takeLine(change);
  else takeRecord(change);
  if (change.kind !== "log") showRequests();
}

function takeRecord({ kind, record }) {
  state.records.set(record.id, record);
  if (kind === "begun") showSamples();
  if (kind === "ended") {
    announce(
      `Request ${record.number}: ${mark(record)[0]}, ${
        milliseconds(record.times.answeredMs)
      }`,
    );
  }
  if (record.id === state.chosen) fetchDetails();
}

function takeLine({ id, line }) {
  if (id !== state.chosen) return;
  if (isFetching) linesAhead.push(line);
  if (state.details !== null) addLine(line);
}

/** Add a line to the chosen request's log, unless its details have it already. */
function addLine(line) {
  if (line.number <= state.details.logLines) return;
  state.details.logLines = line.number;
  state.details.log.push(line);
  const log = at("log");
  if (log === null) {
    showDetails();
    return;
  }
  const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
  log.append(logLine(line));
  if (log.childElementCount > LOG_LINES_SHOWN) log.firstElementChild.remove();
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

/** Functions may be new, gone or changed. */
async function readFunctions() {
  try {
    const found = await ask("state");
    state.functions = found.functions;
    showFunctions();
  } catch {
    // The connection says so.
  }
}

function connect() {
  const source = new EventSource("api/changes");
  const light = at("connection");
  source.addEventListener("open", () => {
    light.className = "connection live";
    light.textContent = "Live";
    readAll().catch((error) => announce(error.message));
  });
  source.addEventListener("error", () => {
    light.className = "connection lost";
    light.textContent = "dev has ended, or cannot be reached";
  });
  for (
    const kind of [
      "begun",
      "changed",
      "log",
      "ended",
      "dropped",
      "notice",
      "lost",
    ]
  ) {
    source.addEventListener(kind, takeChange);
  }
}

/** Arrows go from request to request; Escape closes one; Ctrl + Enter sends. */
function takeKey(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    send(event);
    return;
  }
  if (event.key === "Escape" && state.chosen !== "") {
    close();
    return;
  }
  const rows = [...at("requests").querySelectorAll("button")];
  const index = rows.indexOf(document.activeElement);
  if (index === -1) return;
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const next = step === undefined ? undefined : rows[index + step];
  if (next !== undefined) {
    event.preventDefault();
    next.focus();
  }
}

at("send").addEventListener("submit", send);
at("format").addEventListener(
  "click",
  () => checkEvent() && setEvent(at("event").value),
);
at("event").addEventListener("input", checkEvent);
at("sample").addEventListener("change", takeSample);
document.addEventListener("keydown", takeKey);
showDetails();
connect();
