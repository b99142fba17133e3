// What a handler can do, one function each; true: it went well. `names` in the event
// says which.
import { execFile } from "node:child_process";
import { pbkdf2, randomBytes } from "node:crypto";
import dns from "node:dns/promises";
import { readFile } from "node:fs/promises";
import process from "node:process";
import { DatabaseSync } from "node:sqlite";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { setPid, systemPid } from "./child.mjs";

const loadedAs = Deno.pid;
const decoder = new TextDecoder();
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const program = async (name, ...args) => {
  const { stdout } = await new Deno.Command(name, { args }).output();
  return decoder.decode(stdout);
};
const WASM = new Uint8Array([
  0,
  97,
  115,
  109,
  1,
  0,
  0,
  0,
  1,
  5,
  1,
  96,
  0,
  1,
  127,
  3,
  2,
  1,
  0,
  7,
  5,
  1,
  1,
  102,
  0,
  0,
  10,
  6,
  1,
  4,
  0,
  65,
  42,
  11,
]);

const functions = {
  async timers() {
    const begun = Date.now();
    await sleep(20);
    return Date.now() - begun >= 19;
  },
  async interval() {
    let count = 0;
    await new Promise((resolve) => {
      const timer = setInterval(() => {
        if (++count < 3) return;
        clearInterval(timer);
        resolve();
      }, 5);
    });
    return count === 3;
  },
  async readTextFile() {
    return (await Deno.readTextFile("/etc/passwd")).includes("root");
  },
  async nodeReadFile() {
    return (await readFile("/etc/passwd", "utf8")).includes("root");
  },
  async manyReads() {
    const read = () => Deno.readTextFile("/etc/passwd");
    const texts = await Promise.all(Array.from({ length: 40 }, read));
    return texts.every((text) => text === texts[0]);
  },
  async write() {
    const file = await Deno.makeTempFile();
    await Deno.writeTextFile(file, "x".repeat(100_000));
    const handle = await Deno.open(file, { read: true, write: true });
    await handle.sync();
    handle.close();
    const { size } = await Deno.stat(file);
    await Deno.remove(file);
    return size === 100_000;
  },
  async lookup() {
    return (await dns.lookup("localhost")).address.length > 0;
  },
  async ecdsa() {
    const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
    const keys = await crypto.subtle.generateKey(algorithm, true, [
      "sign",
      "verify",
    ]);
    const data = new Uint8Array(10);
    const signature = await crypto.subtle.sign(
      algorithm,
      keys.privateKey,
      data,
    );
    return await crypto.subtle.verify(
      algorithm,
      keys.publicKey,
      signature,
      data,
    );
  },
  async pbkdf2() {
    return (await promisify(pbkdf2)("a", "b", 1000, 32, "sha256")).length ===
      32;
  },
  async randomBytes() {
    return (await promisify(randomBytes)(16)).length === 16;
  },
  async gzip() {
    return (await promisify(gzip)(new Uint8Array(100_000))).length > 10;
  },
  async compressionStream() {
    const source = new Blob(["x".repeat(100_000)]).stream();
    const packed = source.pipeThrough(new CompressionStream("gzip"));
    return (await new Response(packed).arrayBuffer()).byteLength > 10;
  },
  async listen() {
    const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
    const accepted = listener.accept();
    const client = await Deno.connect({ ...listener.addr, transport: "tcp" });
    const server = await accepted;
    await server.write(new Uint8Array([7]));
    const bytes = new Uint8Array(1);
    await client.read(bytes);
    client.close();
    server.close();
    listener.close();
    return bytes[0] === 7;
  },
  async serve() {
    const options = { port: 0, hostname: "127.0.0.1", onListen() {} };
    const server = Deno.serve(options, async (request) => {
      return new Response((await request.text()).repeat(2));
    });
    const address = `http://127.0.0.1:${server.addr.port}/`;
    const body = "x".repeat(200_000);
    const post = async () =>
      (await fetch(address, { method: "POST", body })).text();
    const texts = await Promise.all([post(), post(), post(), post(), post()]);
    await server.shutdown();
    return texts.every((text) => text.length === 400_000);
  },
  async wasm() {
    const module = await WebAssembly.compile(WASM);
    return (await WebAssembly.instantiate(module)).exports.f() === 42;
  },
  async worker() {
    const source = "data:application/javascript,postMessage(6*7)";
    const worker = new Worker(source, { type: "module" });
    const value = await new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = reject;
    });
    worker.terminate();
    return value === 42;
  },
  async dynamicImport() {
    return (await import("data:application/javascript,export default 5"))
      .default === 5;
  },
  async dynamicNodeImport() {
    return typeof (await import("node:http")).createServer === "function";
  },
  sqlite() {
    const database = new DatabaseSync(":memory:");
    database.exec("create table t(a); insert into t values (3)");
    return database.prepare("select a from t").get().a === 3;
  },
  objects() {
    const all = [];
    for (let i = 0; i < 1_000_000; i++) all.push({ i, text: `x${i}` });
    return all.length === 1_000_000;
  },
  sort() {
    const numbers = new Float64Array(1_000_000).map(() => Math.random());
    numbers.sort();
    return numbers[0] <= numbers[1];
  },
  compute() {
    let sum = 0;
    for (let i = 0; i < 10_000_000; i++) sum = (sum * 31 + i) | 0;
    return typeof sum === "number";
  },
  async command() {
    return await program("/bin/echo", "hi") === "hi\n";
  },
  async execFile() {
    return (await promisify(execFile)("/bin/echo", ["a"])).stdout === "a\n";
  },
  atomicsWait() {
    const array = new Int32Array(new SharedArrayBuffer(4));
    return Atomics.wait(array, 0, 0, 10) === "timed-out";
  },
  async signalFromElsewhere() {
    const alive = setTimeout(() => {}, 5000);
    const come = new Promise((resolve) =>
      Deno.addSignalListener("SIGUSR2", resolve)
    );
    await program("/bin/sh", "-c", `kill -USR2 ${Deno.pid}`);
    await come;
    clearTimeout(alive);
    return true;
  },
  async signalToOneself() {
    const alive = setTimeout(() => {}, 5000);
    const come = new Promise((resolve) =>
      Deno.addSignalListener("SIGWINCH", resolve)
    );
    Deno.kill(loadedAs, "SIGWINCH"); // the template's number, which a module may keep
    await come;
    clearTimeout(alive);
    return true;
  },
  async watch() {
    const folder = await Deno.makeTempDir();
    const watcher = Deno.watchFs(folder);
    setTimeout(() => Deno.writeTextFileSync(`${folder}/a`, "x"), 20);
    for await (const _event of watcher) break;
    return true;
  },
  pid() {
    return Deno.pid === systemPid() && process.pid === systemPid();
  },
  ownGroup() {
    const [, , group] = Deno.readTextFileSync("/proc/self/stat").split(") ")[1]
      .split(" ");
    return Number(group) === systemPid();
  },
  ownEnvironment() {
    const text = Deno.readTextFileSync("/proc/self/environ");
    const all = Object.keys(Deno.env.toObject()).join();
    return !/LD_PRELOAD|FORK_FD/.test(text + all);
  },
  async environmentOfPrograms() {
    return !/LD_PRELOAD|FORK_FD/.test(await program("/usr/bin/env"));
  },
  async descriptorsOfPrograms() {
    // Its three streams, and the folder that it lists.
    return (await program("/bin/ls", "/proc/self/fd")).trim().split("\n")
      .length === 4;
  },
  async librariesOfPrograms() {
    return !(await program("/bin/cat", "/proc/self/maps")).includes(
      "lambda-deno-fork",
    );
  },
  async stdinIsAtItsEnd() {
    return await Deno.stdin.read(new Uint8Array(1)) === null;
  },
};

export const names = Object.keys(functions);

export async function handler({ names }) {
  setPid(systemPid());
  const outcomes = {};
  for (const name of names) outcomes[name] = await functions[name]();
  return outcomes;
}
