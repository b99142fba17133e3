// @ts-check
/**
 * The handler of `doctor --isolation`: the first event plants data, the second one
 * searches for it.
 *
 * Hostile on purpose. Its event says which permissions it has. Knows each way by which one
 * event could reach the next, as a table. Does not know how it is run, so that it does the
 * same in one process for all events and in a process for each. Run by isolation.py.
 *
 * @module
 */
import { randomBytes } from "node:crypto";
import os from "node:os";
import process from "node:process";

/**
 * @typedef {"control" | "control-holding" | "all" | "holding" | "default"} Case What is
 *   run: default: with the default permissions, else with all; control: in one process
 *   for all events; holding: the module holds what two processes cannot share.
 *
 * @typedef {object} ProbeEvent
 * @property {"none" | "plant" | "look"} phase
 * @property {Case} case
 * @property {string} nonce Marks the data of this pair of events.
 * @property {string} scratch Folder outside the function, for heartbeats.
 * @property {string} tempRoot `/tmp` of the execution environment.
 * @property {string} runtimeApi `host:port`.
 * @property {number} witnessPort Port of a server that knows its open connections.
 * @property {string[]} helper Command that starts a child process of each kind.
 * @property {number} patienceMs How long to wait for a heartbeat.
 * @property {Record<string, Planted>} [planted] Response to the first event.
 *
 * @typedef {object} Planted
 * @property {string} planted Description.
 * @property {string} [denied] How the permissions prevented it.
 * @property {string} [unavailable] Why it is not possible here.
 * @property {any} [note] Data for the second event.
 *
 * @typedef {object} Found
 * @property {boolean | null} leaked Null: the search failed.
 * @property {string} evidence
 *
 * @typedef {object} Probe
 * @property {string} planted
 * @property {Case[]} under When to run it; the control runs all probes, or all of a
 *   module that holds something.
 * @property {(event: ProbeEvent) => any} plant Returns the note.
 * @property {(note: any, event: ProbeEvent) => Promise<Verdict> | Verdict} look
 *
 * @typedef {[leaked: boolean, evidence: string]} Verdict
 */

/** The probe cannot be run on this machine. */
class Unavailable extends Error {}

/** The runtime withholds it from handlers: counts as denied. */
class Withheld extends Error {}

/** Milliseconds between two heartbeats. */
const BEAT_MS = 20;
/** So many files take time to remove. */
const LEFT_FILES = 2_000;
/** Longest wait for an import that no server may answer. */
const IMPORT_LIMIT_MS = 1_000;
/** Protects open files and sockets from garbage collection, which would close them. */
const kept = /** @type {unknown[]} */ ([]);
const scope = /** @type {any} */ (globalThis);
let moduleState = "";
/** The module's timer. */
let onTick = () => {};
setInterval(() => onTick(), BEAT_MS);
/** Made while the module loads, if it is to hold what two processes cannot share. */
const held = Deno.env.get("ISOLATION_PROBE_HOLDS") ? hold() : null;

/** @type {Record<string, Probe>} */
const PROBES = {
  "global-variable": {
    planted: "globalThis.planted = ...",
    under: ["all"],
    plant: ({ nonce }) => void (scope.planted = nonce),
    look: (_, { nonce }) => [
      scope.planted === nonce,
      `globalThis.planted is ${scope.planted}`,
    ],
  },
  "module-state": {
    planted: "let at the top of the handler's module",
    under: ["all"],
    plant: ({ nonce }) => void (moduleState = nonce),
    look: (_, { nonce }) => [moduleState === nonce, `it is "${moduleState}"`],
  },
  "prototype": {
    planted: "Object.prototype.isAdmin = ...",
    under: ["all"],
    plant: ({ nonce }) =>
      void (/** @type {any} */ (Object.prototype).isAdmin = nonce),
    look(_, { nonce }) {
      const { isAdmin } = /** @type {any} */ ({});
      return [isAdmin === nonce, `({}).isAdmin is ${isAdmin}`];
    },
  },
  "json-stringify": {
    planted: "JSON.stringify replaced",
    under: ["all"],
    plant({ nonce }) {
      const { stringify } = JSON;
      /** @type {any} */ (JSON).stringify = (/** @type {any[]} */ ...args) =>
        args[0] === nonce
          ? "stolen"
          : stringify(.../** @type {[any]} */ (args));
    },
    look(_, { nonce }) {
      const text = JSON.stringify(nonce);
      return [text === "stolen", `JSON.stringify(secret) is ${text}`];
    },
  },
  "fetch": {
    planted: "fetch replaced",
    under: ["all"],
    plant() {
      const original = fetch;
      scope.fetch = (/** @type {[any]} */ ...args) =>
        args[0] === "data:,original"
          ? Promise.resolve(new Response("stolen"))
          : original(...args);
    },
    async look() {
      const text = await (await fetch("data:,original")).text();
      return [text === "stolen", `fetch returns "${text}"`];
    },
  },
  "timer": {
    planted: "setInterval that writes to a file",
    under: ["all"],
    plant: (event) => void setInterval(() => beat(event, "timer"), BEAT_MS),
    look: (_, event) => isBeating(event, "timer"),
  },
  "unfinished-work": {
    planted: "async function that continues after the response",
    under: ["all"],
    plant(event) {
      (async () => {
        for (;;) {
          await pause(BEAT_MS);
          beat(event, "unfinished-work");
        }
      })();
    },
    look: (_, event) => isBeating(event, "unfinished-work"),
  },
  "web-worker": {
    planted: "Web Worker that writes to a file",
    under: ["all"],
    async plant(event) {
      const file = JSON.stringify(beatFile(event, "web-worker"));
      kept.push(
        await worker(
          `let n = 0; setInterval(() => { postMessage(n);
           Deno.writeTextFileSync(${file}, String(++n)) }, ${BEAT_MS})`,
        ),
      );
    },
    look: (_, event) => isBeating(event, "web-worker"),
  },
  "log-line": {
    planted: "setInterval that logs, under the second event's request id",
    under: ["all"],
    plant(event) {
      setInterval(() => {
        console.log(`late line ${event.nonce}`);
        beat(event, "log-line");
      }, BEAT_MS);
    },
    // isolation.py looks for the request id of these lines in the log.
    look: (_, event) => isBeating(event, "log-line"),
  },
  "listening-port": {
    planted: "TCP server",
    under: ["all"],
    plant({ nonce }) {
      const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
      (async () => {
        for await (const connection of listener) {
          await connection.write(new TextEncoder().encode(nonce));
          connection.close();
        }
      })();
      return listener.addr.port;
    },
    async look(port, { nonce }) {
      const reply = await ask(port, "");
      return [reply === nonce, `port ${port}: ${reply || "no response"}`];
    },
  },
  "open-connection": {
    planted: "TCP connection to a server",
    under: ["all"],
    async plant({ nonce, witnessPort }) {
      const connection = await Deno.connect({ port: witnessPort });
      kept.push(connection);
      await connection.write(new TextEncoder().encode(`open ${nonce}\n`));
      await connection.read(new Uint8Array(16));
    },
    async look(_, { nonce, witnessPort }) {
      const reply = await ask(witnessPort, `ask ${nonce}\n`);
      if (reply === "") throw new Unavailable("the witness does not respond");
      const isOpen = reply.trim() === "open";
      return [isOpen, `the server sees it ${reply.trim()}`];
    },
  },
  "private-file": {
    planted: "files in TMPDIR and HOME",
    under: ["all", "default"],
    plant({ nonce }) {
      const paths = ["TMPDIR", "HOME"].map((n) => `${Deno.env.get(n)}/planted`);
      for (const path of paths) Deno.writeTextFileSync(path, nonce);
      return paths;
    },
    look(paths, { nonce }) {
      const own = ["TMPDIR", "HOME"].map((n) => `${Deno.env.get(n)}/planted`);
      const left = [...own, ...paths].find((path) => read(path) === nonce);
      return [left !== undefined, left ?? "neither exists"];
    },
  },
  "environment-variable": {
    planted: 'Deno.env.set("PLANTED", ...)',
    under: ["all"],
    plant: ({ nonce }) => Deno.env.set("PLANTED", nonce),
    look(_, { nonce }) {
      const value = Deno.env.get("PLANTED");
      return [value === nonce, `PLANTED is ${value}`];
    },
  },
  "working-directory": {
    planted: "Deno.chdir(TMPDIR)",
    under: ["all"],
    plant() {
      const before = Deno.cwd();
      Deno.chdir(Deno.env.get("TMPDIR") ?? "/");
      return { before, after: Deno.cwd() };
    },
    look: ({ before, after }) => [
      before !== after && currentFolder() === after,
      `it is ${
        currentFolder() === before ? "the function's" : currentFolder()
      }`,
    ],
  },
  "umask": {
    planted: "Deno.umask(...)",
    under: ["all"],
    plant() {
      const mask = (Deno.umask() ^ 0o050) & 0o777;
      Deno.umask(mask);
      return mask;
    },
    look(mask) {
      const found = Deno.umask();
      return [found === mask, `it is 0${found.toString(8).padStart(3, "0")}`];
    },
  },
  "event-listener": {
    planted: "globalThis.addEventListener",
    under: ["all"],
    plant({ nonce }) {
      globalThis.addEventListener("probe", (event) => {
        /** @type {CustomEvent} */ (event).detail.push(nonce);
      });
    },
    look(_, { nonce }) {
      /** @type {string[]} */
      const heard = [];
      globalThis.dispatchEvent(new CustomEvent("probe", { detail: heard }));
      return [heard.includes(nonce), `${heard.length} listeners received it`];
    },
  },
  "signal-listener": {
    planted: 'Deno.addSignalListener("SIGUSR1")',
    under: ["all"],
    plant: (event) =>
      Deno.addSignalListener("SIGUSR1", () => beat(event, "signal-listener")),
    async look(_, event) {
      // Add a listener first: without one, the signal would kill the process.
      await new Promise((resolve) => {
        const heard = () => {
          Deno.removeSignalListener("SIGUSR1", heard);
          resolve(undefined);
        };
        Deno.addSignalListener("SIGUSR1", heard);
        Deno.kill(Deno.pid, "SIGUSR1");
      });
      await pause(BEAT_MS);
      const isHeard = read(beatFile(event, "signal-listener")) !== null;
      return [
        isHeard,
        isHeard ? "it received the signal" : "no other listener received it",
      ];
    },
  },
  "local-storage": {
    planted: "localStorage.setItem",
    under: ["all", "default"],
    plant: ({ nonce }) => given("localStorage").setItem("planted", nonce),
    look(_, { nonce }) {
      const value = given("localStorage").getItem("planted");
      return [value === nonce, `getItem gives ${value}`];
    },
  },
  "session-storage": {
    planted: "sessionStorage.setItem",
    under: ["all"],
    plant: ({ nonce }) => sessionStorage.setItem("planted", nonce),
    look(_, { nonce }) {
      const value = sessionStorage.getItem("planted");
      return [value === nonce, `getItem gives ${value}`];
    },
  },
  "cache-api": {
    planted: "caches.open(...).put(...)",
    under: ["all", "default"],
    async plant({ nonce }) {
      const cache = await given("caches").open("planted");
      await cache.put("http://localhost/planted", new Response(nonce));
    },
    async look(_, { nonce }) {
      const cache = await given("caches").open("planted");
      const response = await cache.match("http://localhost/planted");
      const text = await response?.text();
      return [text === nonce, `match gives ${text}`];
    },
  },
  "cache-api-in-worker": {
    planted: "the same in a Web Worker",
    under: ["all", "default"],
    async plant({ nonce }) {
      const [ended, { data }] = await worker(
        `const cache = await given("caches").open("in-worker");
         await cache.put("http://localhost/planted", new Response("${nonce}"));
         postMessage("")`,
      );
      ended.terminate();
      if (data !== "") throw new Withheld(data);
    },
    async look(_, { nonce }) {
      const [ended, { data }] = await worker(
        `const cache = await given("caches").open("in-worker");
         const response = await cache.match("http://localhost/planted");
         postMessage(await response?.text())`,
      );
      ended.terminate();
      return [data === nonce, `match gives ${data}`];
    },
  },
  "deno-kv": {
    planted: "Deno.openKv().set",
    under: ["all"],
    async plant({ nonce }) {
      const kv = await openKv();
      await kv.set(["planted"], nonce);
      kv.close();
    },
    async look(_, { nonce }) {
      const kv = await openKv();
      const { value } = await kv.get(["planted"]);
      kv.close();
      return [value === nonce, `get gives ${value}`];
    },
  },
  "priority": {
    planted: "os.setPriority of itself",
    under: ["all"],
    plant: () => lowerPriority(Deno.pid, 3),
    look: (priority) => hasPriority(Deno.pid, priority),
  },
  "parent-priority": {
    planted: "os.setPriority of its parent",
    under: ["all", "default"],
    plant: () => lowerPriority(Deno.ppid, 1),
    look: (priority) => hasPriority(Deno.ppid, priority),
  },
  "parent-limits": {
    planted: "a lower limit on its parent's open files",
    under: ["all"],
    plant: (event) => fileLimit(event, "- 1"),
    look(planted, event) {
      const found = fileLimit(event, "");
      return [found === planted, `it is ${found}`];
    },
  },
  "open-files": {
    planted: "three files opened and never closed",
    under: ["all"],
    plant(event) {
      const path = beatFile(event, "open-files");
      Deno.writeTextFileSync(path, "");
      for (let i = 0; i < 3; i++) kept.push(Deno.openSync(path));
      if (openFiles(Deno.pid) === "") {
        throw new Unavailable("there is no /proc");
      }
      return path;
    },
    look(path) {
      const files = `${openFiles(Deno.pid)}${openFiles(Deno.ppid)}`.split("\n");
      const count = files.filter((line) => line.endsWith(` ${path}`)).length;
      return [
        count > 0,
        `${count} descriptors of it and its parent are of this file`,
      ];
    },
  },
  "child": child("child program", ["all", "default"]),
  "child-pipes": {
    planted: "program that inherits stdout and stderr",
    under: ["all"],
    plant: () => identity(start(["sleep", "60"], "inherit").pid),
    look: (process) => isAlive(process),
  },
  "child-session": child("setsid"),
  "child-double-fork": child("setsid and two forks: a daemon"),
  "child-renamed": child('setsid, called "[kworker/0:1]"'),
  "child-clean-environment": child("setsid, no environment"),
  "child-ignores-signals": child("setsid, ignores all signals it can"),
  "child-stopped": child("setsid, stopped (SIGSTOP)"),
  "child-everything": child("daemon with all of these disguises"),
  "file-in-tmp": {
    planted: "file in /tmp, outside its private folder",
    under: ["default"],
    plant: ({ nonce, tempRoot }) =>
      Deno.writeTextFileSync(`${tempRoot}/planted`, nonce),
    look: (_, { nonce, tempRoot }) => isThere(`${tempRoot}/planted`, nonce),
  },
  "file-beside-function": {
    planted: "file in the function's folder",
    under: ["default"],
    plant({ nonce }) {
      const path = new URL("./planted", import.meta.url).pathname;
      Deno.writeTextFileSync(path, nonce);
      return path;
    },
    look: (path, { nonce }) => isThere(path, nonce),
  },
  "file-in-deno-dir": {
    planted: "file in Deno's cache",
    under: ["default"],
    plant({ nonce }) {
      const path = `${Deno.env.get("DENO_DIR")}/planted`;
      Deno.writeTextFileSync(path, nonce);
      return path;
    },
    look: (path, { nonce }) => isThere(path, nonce),
  },
  "main-module": {
    planted: "code in the main module of the next process",
    under: ["default"],
    plant({ nonce }) {
      const path = new URL(Deno.mainModule).pathname;
      Deno.writeTextFileSync(path, `// ${nonce}`, { append: true });
      return path;
    },
    look(path, { nonce }) {
      const isChanged = read(path)?.endsWith(nonce) ?? false;
      return [isChanged, isChanged ? "it is there" : "the module is unchanged"];
    },
  },
  "module-loader": {
    planted: "imports through its own proxy, which could be the Runtime API",
    under: ["all", "default"],
    plant: (event) => importByProxy(event),
    async look(_, { nonce, witnessPort }) {
      const answer = await ask(witnessPort, `asked ${plantedUrl(nonce)}\n`);
      if (answer === "") throw new Unavailable("the witness does not answer");
      const wasAsked = answer.trim() === "open";
      return [wasAsked, wasAsked ? "it was asked" : "it was never asked"];
    },
  },
  "module-cache": {
    planted: "module from that proxy, imported again by the second event",
    under: ["all", "default"],
    plant: (event) => importByProxy(event),
    async look(_, { nonce }) {
      try {
        const module = await soon(import(plantedUrl(nonce)));
        return [module.default === nonce, `it says "${module.default}"`];
      } catch {
        return [false, "it cannot be imported"];
      }
    },
  },
  "imported-code": {
    planted: "TypeScript imported by a data: URL",
    under: ["all", "default"],
    async plant({ nonce }) {
      const code = `export const x: string = "code of ${nonce}";`;
      await import(`data:text/typescript,${encodeURIComponent(code)}`);
    },
    // isolation.py looks for the file.
    look: () => [false, ""],
  },
  "left-files": {
    planted: `${LEFT_FILES} files in TMPDIR`,
    under: ["all", "default"],
    plant({ nonce }) {
      const folder = `${Deno.env.get("TMPDIR")}/left-${nonce}`;
      Deno.mkdirSync(folder);
      for (let n = 0; n < LEFT_FILES; n++) {
        Deno.writeTextFileSync(`${folder}/${n}`, "");
      }
    },
    // isolation.py looks for the files.
    look: () => [false, ""],
  },
  "module-timer": {
    planted: "work for a timer that the module has set",
    under: ["all"],
    plant: (event) => void (onTick = () => beat(event, "module-timer")),
    look: (_, event) => isBeating(event, "module-timer"),
  },
  "randomness": {
    planted:
      "Math.random and crypto.getRandomValues: replaced, and what they said",
    under: ["all", "default"],
    plant() {
      const numbers = drawn();
      Math.random = () => 0.5;
      crypto.getRandomValues = (array) => array;
      return numbers;
    },
    look(numbers) {
      const again = drawn();
      const same =
        again.filter((n) => numbers.includes(n) || n === "0.5").length;
      return [same > 0, `${same} of ${again.length} are the same or known`];
    },
  },
  "pid": {
    planted: "its process's number, by which the next one could be signalled",
    under: ["all"],
    plant: () => [Deno.pid, process.pid],
    look(pids) {
      const own = [Deno.pid, process.pid];
      const known = own.find((pid) => pids.includes(pid));
      return [known !== undefined, `they are ${own.join(" and ")}`];
    },
  },
  "control-channel": {
    planted: "the way to what hands out events, among its descriptors",
    under: ["all"],
    plant() {},
    look(_, { runtimeApi }) {
      const count = waysOut(Number(runtimeApi.split(":")[1]));
      return [count > 0, `${count} of its descriptors lead there`];
    },
  },
  "module-random": {
    planted: "random number that the module draws",
    under: ["holding"],
    plant: () => holding().key,
    look(key) {
      const isSame = holding().key === key;
      return [isSame, `it is ${isSame ? "the same" : "another one"}`];
    },
  },
  "module-socket": {
    planted: "connection to a server of the module's, not accepted yet",
    under: ["holding"],
    async plant({ nonce }) {
      const { listener } = holding();
      const connection = await Deno.connect({ port: listener.addr.port });
      await connection.write(new TextEncoder().encode(nonce));
      kept.push(connection);
    },
    async look(_, { nonce, patienceMs }) {
      const { listener } = holding();
      const late = pause(patienceMs / 4).then(() => null);
      const connection = await Promise.race([listener.accept(), late]);
      if (connection === null) return [false, "there is none"];
      const buffer = new Uint8Array(nonce.length);
      await connection.read(buffer);
      const text = new TextDecoder().decode(buffer);
      return [text === nonce, `it says "${text}"`];
    },
  },
  "module-worker": {
    planted: "message to a Web Worker of the module's",
    under: ["holding"],
    plant: ({ nonce }) => tellWorker(nonce),
    async look(_, { nonce }) {
      const before = await tellWorker("");
      return [before === nonce, `the one before was "${before}"`];
    },
  },
  "module-child": {
    planted: "text for a program of the module's",
    under: ["holding"],
    async plant({ nonce }) {
      const writer = holding().child.stdin.getWriter();
      await writer.write(new TextEncoder().encode(nonce));
    },
    async look(_, { nonce, patienceMs }) {
      const late = pause(patienceMs / 4).then(() => null);
      const read = holding().child.stdout.getReader().read();
      const found = await Promise.race([read, late]);
      const text = new TextDecoder().decode(found?.value);
      return [text === nonce, `it gives back "${text}"`];
    },
  },
  "runtime-api": {
    planted: "asks the Runtime API for the next event",
    under: ["all", "default"],
    plant: ({ runtimeApi }) => connectable(runtimeApi),
    async look(_, { runtimeApi }) {
      const [host, port] = runtimeApi.split(":");
      const head = `GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n` +
        `Host: ${host}\r\n\r\n`;
      const reply = await ask(Number(port), head);
      return [reply.startsWith("HTTP/1.1 200"), reply.split("\r\n")[0]];
    },
  },
};

/** Make what two processes cannot share. */
function hold() {
  const source =
    "let last; onmessage = ({ data }) => { postMessage(last); last = data }";
  return {
    key: crypto.randomUUID(),
    listener: Deno.listen({ hostname: "127.0.0.1", port: 0 }),
    worker: new Worker(`data:text/javascript,${source}`, { type: "module" }),
    child: new Deno.Command("cat", { stdin: "piped", stdout: "piped" }).spawn(),
  };
}

function holding() {
  if (held === null) throw new Unavailable("the module holds nothing");
  return held;
}

/**
 * Send a message to the module's worker and return the one before.
 *
 * @param {string} text
 * @returns {Promise<string>}
 */
function tellWorker(text) {
  const { worker } = holding();
  return new Promise((resolve) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.postMessage(text);
  });
}

/** Draw random numbers from all sources. */
function drawn() {
  return [
    Math.random(),
    Math.random(),
    crypto.randomUUID(),
    crypto.getRandomValues(new Uint32Array(4)),
    randomBytes(16).toString("hex"),
  ].map(String);
}

/**
 * Count the descriptors of this process that lead to the Runtime API, or to the
 * supervisor in packets, as the control channel of a template does.
 *
 * @param {number} port
 */
function waysOut(port) {
  const links = output("ls", "-l", `/proc/${Deno.pid}/fd`);
  const rem = `:${port.toString(16).toUpperCase().padStart(4, "0")} `;
  const tcp = output("cat", "/proc/net/tcp").split("\n")
    .filter((line) => line.trim().split(/\s+/)[2]?.endsWith(rem.trim()))
    .map((line) => line.trim().split(/\s+/)[9]);
  const packets = output("cat", "/proc/net/unix").split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[4] === "0005")
    .map((fields) => fields[6]);
  return [...tcp, ...packets].filter((inode) =>
    links.includes(`socket:[${inode}]`)
  )
    .length;
}

/**
 * Plant data, or search for it.
 *
 * @param {ProbeEvent} event
 */
export async function handler(event) {
  const { phase, case: name } = event;
  if (phase === "none") return { pid: Deno.pid, ppid: Deno.ppid, rows: {} };
  const wanted = Object.entries(PROBES).filter(([, { under }]) =>
    name === "control" ? !under.includes("holding") : under.includes(
      name === "control-holding" ? "holding" : name,
    )
  );
  if (phase === "plant" && held === null) startChildren(event);
  const work = phase === "plant" ? plant : look;
  // Concurrently: most of them wait for a heartbeat that never comes.
  const rows = await Promise.all(
    wanted.map(async ([id, probe]) => [id, await work(id, probe, event)]),
  );
  return { pid: Deno.pid, ppid: Deno.ppid, rows: Object.fromEntries(rows) };
}

/**
 * @param {string} _
 * @param {Probe} probe
 * @param {ProbeEvent} event
 * @returns {Promise<Planted>}
 */
async function plant(_, { planted, plant }, event) {
  try {
    return { planted, note: await plant(event) };
  } catch (error) {
    const key = isDenial(error) ? "denied" : "unavailable";
    return { planted, [key]: sentence(error) };
  }
}

/**
 * @param {string} id
 * @param {Probe} probe
 * @param {ProbeEvent} event
 * @returns {Promise<Found>}
 */
async function look(id, { look }, event) {
  const { denied, unavailable, note } = event.planted?.[id] ?? {
    unavailable: "it was not planted",
  };
  if (denied !== undefined) return { leaked: false, evidence: denied };
  if (unavailable !== undefined) return { leaked: null, evidence: unavailable };
  try {
    const [leaked, evidence] = await look(note, event);
    return { leaked, evidence };
  } catch (error) {
    return {
      leaked: isDenial(error) ? false : null,
      evidence: sentence(error),
    };
  }
}

/** @param {unknown} error */
function isDenial(error) {
  return error instanceof Withheld ||
    error instanceof Deno.errors.NotCapable ||
    error instanceof Deno.errors.PermissionDenied ||
    // Deno finds no folder to store persistent data in.
    error instanceof Deno.errors.NotADirectory ||
    /** @type {any} */ (error)?.code === "EACCES" ||
    /** @type {any} */ (error)?.code === "EPERM";
}

/**
 * Return the URL of a module that no server has: at a host from which functions may
 * import by default, and without TLS, so that a proxy can answer for it.
 *
 * @param {string} nonce
 */
function plantedUrl(nonce) {
  return `http://esm.sh:443/${nonce}.js`;
}

/** The import that both checks about the loader need. @type {Promise<void> | undefined} */
let importing;

/**
 * Have Deno's module loader ask the witness, once.
 *
 * @param {ProbeEvent} event
 */
function importByProxy({ nonce, witnessPort }) {
  importing ??= (async () => {
    Deno.env.set("HTTP_PROXY", `http://127.0.0.1:${witnessPort}`);
    try {
      await soon(import(plantedUrl(nonce)));
    } catch {
      // The second event finds out whether the witness was asked.
    } finally {
      Deno.env.delete("HTTP_PROXY");
    }
  })();
  return importing;
}

/**
 * @template T
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
function soon(promise) {
  const late = pause(IMPORT_LIMIT_MS).then(() => {
    throw new Error("it took too long");
  });
  return Promise.race([promise, late]);
}

/** @param {unknown} error */
function sentence(error) {
  const text = error instanceof Error ? error.message : String(error);
  return text.split(", run again with ")[0].split("\n")[0];
}

/**
 * Return a global, if the runtime gives it to handlers.
 *
 * @param {string} name
 */
function given(name) {
  if (scope[name] === undefined) throw new Withheld(`there is no ${name}`);
  return scope[name];
}

/** @param {number} ms */
function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * @param {ProbeEvent} event
 * @param {string} id
 */
function beatFile({ scratch }, id) {
  return `${scratch}/${id}`;
}

/**
 * Write a heartbeat.
 *
 * @param {ProbeEvent} event
 * @param {string} id
 */
function beat(event, id) {
  Deno.writeTextFileSync(beatFile(event, id), ".", { append: true });
}

/**
 * Wait for a heartbeat.
 *
 * @param {ProbeEvent} event
 * @param {string} id
 * @returns {Promise<Verdict>}
 */
async function isBeating(event, id) {
  const file = beatFile(event, id);
  const end = performance.now() + event.patienceMs;
  const before = read(file);
  while (performance.now() < end) {
    const now = read(file);
    // A file is empty for a moment while it is written.
    if (now !== before && now !== "") return [true, "it continues"];
    await pause(BEAT_MS / 4);
  }
  return [false, `no heartbeat in ${event.patienceMs} ms`];
}

/**
 * @param {string} path
 * @returns {string | null} Null: the file does not exist.
 */
function read(path) {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/**
 * @param {string} path
 * @param {string} nonce
 * @returns {Verdict}
 */
function isThere(path, nonce) {
  const isThere = read(path) === nonce;
  return [isThere, isThere ? "it is there" : "it is not there"];
}

/** Return the working directory, or the error if it no longer exists. */
function currentFolder() {
  try {
    return Deno.cwd();
  } catch (error) {
    return sentence(error);
  }
}

/**
 * Start a Web Worker and return it with its first message, which may be an error.
 *
 * @param {string} code
 * @returns {Promise<[Worker, MessageEvent]>}
 */
async function worker(code) {
  const module = `const given = (name) => {
      if (globalThis[name] === undefined) throw new Error("there is no " + name);
      return globalThis[name];
    };
    try { ${code} } catch (error) { postMessage(error.message) }`;
  const url = `data:application/javascript,${encodeURIComponent(module)}`;
  const started = new Worker(url, { type: "module" });
  const message = await new Promise((resolve, reject) => {
    started.onmessage = resolve;
    started.onerror = reject;
  });
  return [started, message];
}

/**
 * Send a text to a local port and return the first bytes of the response; empty without a
 * response.
 *
 * @param {number} port
 * @param {string} text
 */
async function ask(port, text) {
  let connection;
  try {
    connection = await Deno.connect({ hostname: "127.0.0.1", port });
    if (text !== "") await connection.write(new TextEncoder().encode(text));
    const buffer = new Uint8Array(4096);
    const count = await connection.read(buffer);
    return new TextDecoder().decode(buffer.subarray(0, count ?? 0));
  } catch (error) {
    if (isDenial(error)) throw error;
    return "";
  } finally {
    connection?.close();
  }
}

/**
 * Connect, to test the permissions.
 *
 * @param {string} address `host:port`.
 */
async function connectable(address) {
  const [hostname, port] = address.split(":");
  (await Deno.connect({ hostname, port: Number(port) })).close();
}

function openKv() {
  const open = /** @type {any} */ (Deno).openKv;
  if (open === undefined) throw new Withheld("there is no Deno.openKv");
  return open();
}

/**
 * Change and return how many files the parent of this process may have open, by a program:
 * there is no function for it in Deno.
 *
 * @param {ProbeEvent} event
 * @param {string} change An operation in Python, such as "- 1"; empty: no change.
 */
function fileLimit({ helper }, change) {
  const code = `if True:
    from resource import RLIMIT_NOFILE, prlimit
    soft, hard = prlimit(${Deno.ppid}, RLIMIT_NOFILE)
    prlimit(${Deno.ppid}, RLIMIT_NOFILE, (soft ${change}, hard))
    print(soft ${change})`;
  const limit = Number(output(helper[0], "-I", "-S", "-c", code));
  if (limit === 0) throw new Unavailable("it cannot be changed");
  return limit;
}

/**
 * Lower the priority of a process, and return the new one.
 *
 * @param {number} pid
 * @param {number} steps
 */
function lowerPriority(pid, steps) {
  const priority = os.getPriority(pid) + steps;
  if (priority > 19) throw new Unavailable("it is the lowest already");
  os.setPriority(pid, priority);
  return priority;
}

/**
 * @param {number} pid
 * @param {number} priority
 * @returns {Verdict}
 */
function hasPriority(pid, priority) {
  const found = os.getPriority(pid);
  return [found === priority, `it is ${found}`];
}

/**
 * List the descriptors of a process, if that is allowed. Deno itself allows access to
 * /proc only under `--allow-all`; a program that it starts may look.
 *
 * @param {number} pid
 */
function openFiles(pid) {
  return output("ls", "-l", `/proc/${pid}/fd`);
}

/**
 * Return the output of a program, whatever its exit code: `ls` fails if a descriptor is
 * closed meanwhile.
 *
 * @param {string[]} command
 */
function output(...command) {
  const [program, ...args] = command;
  const { stdout } = new Deno.Command(program, {
    args,
    stderr: "null",
    cwd: "/",
  }).outputSync();
  return new TextDecoder().decode(stdout);
}

/**
 * @param {string[]} command
 * @param {"inherit" | "piped"} pipes
 */
function start(command, pipes) {
  const [program, ...args] = command;
  return new Deno.Command(program, {
    args,
    stdin: "null",
    stdout: pipes,
    stderr: pipes === "inherit" ? "inherit" : "null",
  }).spawn();
}

/** Process ids by kind. @type {Promise<Map<string, number>>} */
let children = Promise.resolve(new Map());

/** @param {ProbeEvent} event */
function startChildren({ helper }) {
  children = (async () => {
    const { stdout } = start(helper, "piped");
    let text = "";
    for await (const chunk of stdout.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      if (text.endsWith("end\n")) break;
    }
    const lines = text.split("\n").map((line) => line.split(" "));
    return new Map(lines.map(([kind, pid]) => [kind, Number(pid)]));
  })();
  children.catch(() => {}); // each probe reports the error
}

/**
 * Return the probe for a kind of child process; the kind is its id in the table.
 *
 * @param {string} planted
 * @param {Case[]} under
 * @returns {Probe}
 */
function child(planted, under = ["all"]) {
  /** @type {Probe} */
  const probe = {
    planted,
    under,
    async plant() {
      const pids = await children;
      const kind = Object.keys(PROBES).find((id) => PROBES[id] === probe) ?? "";
      const pid = pids.get(kind);
      if (pid === undefined) throw new Unavailable("it did not start");
      return identity(pid);
    },
    look: (process) => isAlive(process),
  };
  return probe;
}

/**
 * Identify a process, to distinguish it from a later one with the same id.
 *
 * @typedef {{ pid: number, started: string }} Identity
 *
 * @param {number} pid
 * @returns {Identity}
 */
function identity(pid) {
  return { pid, started: stat(pid)?.started ?? "" };
}

/**
 * @param {Identity} identity
 * @returns {Verdict}
 */
function isAlive({ pid, started }) {
  const found = stat(pid);
  const isAlive = found !== null && found.started === started;
  const state = isAlive ? `state ${found.state}` : "gone";
  return [isAlive, `process ${pid}: ${state}`];
}

/**
 * Return the state of a process; null if there is none. A zombie counts, as it occupies
 * an id.
 *
 * @param {number} pid
 */
function stat(pid) {
  try {
    process.kill(pid, 0);
  } catch {
    return null;
  }
  const text = output("cat", `/proc/${pid}/stat`);
  if (text === "") return { state: "unknown", started: "" };
  // The name in parentheses may contain anything, even parentheses.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { state: fields[0], started: fields[19] };
}
