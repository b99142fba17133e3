"""Handlers' worst: what is done, and what the caller must be told.

One module, one function per kind. It runs with every permission, because most of this
cannot be done without.
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = """
const encoder = new TextEncoder();
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const shell = (script: string, stdout: "null" | "inherit" = "null") =>
  new Deno.Command("sh", {
    args: ["-c", script], stdin: "null", stdout, stderr: "null",
  }).spawn();
const started = async (script: string) => {
  // The shell ends when its children run; what is left behind is an orphan then.
  await shell(script).status;
  return "left";
};

const cases: Record<string, (event: any, context: any) => unknown> = {
  echo: (event) => event,
  waits: async (event) => { await sleep(5); return event; },
  logs: (event) => {
    for (let i = 0; i < 20; i++) console.log(i, event);
    return event;
  },
  worksLater: (event, context) => {
    context.waitUntil(sleep(5).then(() => console.log("later")));
    return event;
  },
  streams: async function* (event: any) {
    yield JSON.stringify(event).slice(0, 5);
    await sleep(1);
    yield JSON.stringify(event).slice(5);
  },

  throws: () => { throw new RangeError("as told"); },
  throwsProxy: () => {
    throw new Proxy({}, {
      get() { throw 1; }, getPrototypeOf() { throw 1; }, ownKeys() { throw 1; },
    });
  },
  rejectsUnawaited: () => {
    Promise.reject(new Error("nobody waits"));
    return sleep(5_000);
  },
  neverSettles: () => new Promise(() => {}),
  exitsWith0: () => Deno.exit(0),
  exitsWith3: () => Deno.exit(3),
  segfaults: () => {
    // Rust's handler takes the first for a fault that will come again.
    for (;;) Deno.kill(Deno.pid, "SIGSEGV");
  },
  killsItself: () => { Deno.kill(Deno.pid, "SIGKILL"); return sleep(5_000); },
  stopsItself: () => { Deno.kill(Deno.pid, "SIGSTOP"); return sleep(5_000); },
  exhaustsHeap: () => {
    const kept = [];
    for (;;) kept.push(new Array(10_000).fill({}).map(() => ({})));
  },
  exhaustsMemory: () => {
    // Outside of V8's heap, so that the kernel and not V8 sets the limit.
    const kept = [];
    for (;;) kept.push(new Uint8Array(16 << 20).fill(1));
  },
  exhaustsProcesses: () => {
    const sleeper = new Deno.Command("sleep", {
      args: ["300"], stdin: "null", stdout: "null", stderr: "null",
    });
    try {
      for (;;) sleeper.spawn();
    } catch (error) {
      return String(error);
    }
  },
  loops: () => { for (;;); },
  loopsLogging: () => { for (;;) console.log("again"); },
  neverReturns: () => new Promise(() => setInterval(() => {}, 1_000)),
  ignoresTheSignal: (_event, context) => new Promise(() => {
    context.signal.addEventListener("abort", () => { for (;;); });
    setInterval(() => {}, 1_000);
  }),
  writesGarbage: () => {
    const raw = Object.getPrototypeOf(Deno.stdout).writeSync;
    const garbage = new Uint8Array(200_000).map((_, at) => (at * 7919) % 251);
    for (let at = 0; at < garbage.length;) {
      at += raw.call(Deno.stdout, garbage.subarray(at));
    }
    return "wrote";
  },
  tearsFrames: async () => {
    shell("yes tearing | head -c 3000000", "inherit");
    await sleep(2);
    return "x".repeat(300_000);
  },
  leavesChild: () => started("sleep 300 &"),
  leavesSession: () => started("setsid sleep 300 &"),
  leavesDaemon: () => started("(setsid sh -c 'sleep 300 & exec sleep 300' &) &"),
  leavesUnmarked: () => started("env -i setsid /bin/sleep 300 &"),
  leavesStubborn: () => started("setsid sh -c 'trap \\"\\" TERM HUP INT; sleep 300' &"),
  leavesRenamed: () =>
    started('cp /bin/sleep "$TMPDIR/deno" && setsid "$TMPDIR/deno" 300 &'),
  leavesPipes: () => { shell("exec sleep 300", "inherit"); return "left"; },
  leavesForking: () =>
    started("setsid sh -c 'for i in 1 2 3 4 5 6 7 8 9; do sleep 300 & done' &"),
  leavesTimers: () => { setInterval(() => {}, 1); return "left"; },
  leavesServer: () => {
    Deno.serve({ port: 0, onListen() {} }, () => new Response());
    return "left";
  },
  leavesWorker: () => {
    const url = "data:text/javascript,for(;;);";
    new Worker(url, { type: "module" });
    return "left";
  },
  closesStdout: async () => {
    Deno.stdout.close();
    (await import("node:fs")).closeSync(1);
    return "unheard";
  },
  floodsStderr: async () => {
    const line = encoder.encode("e".repeat(1023) + "\\n");
    for (let i = 0; i < 3 * 1024; i++) Deno.stderr.writeSync(line);
    return "flooded";
  },
  returnsTooMuch: () => "x".repeat(7 * 1024 * 1024),
  returnsBigInt: () => 1n,
  deepensFolder: () => {
    Deno.mkdirSync(Deno.env.get("TMPDIR") + "/a".repeat(1_500), { recursive: true });
    return "deep";
  },
  putsFileInItsPlace: () => {
    const folder = Deno.env.get("TMPDIR")!;
    Deno.removeSync(folder);
    Deno.writeTextFileSync(folder, "x".repeat(100_000));
    return "put";
  },
  putsLinkInItsPlace: () => {
    const folder = Deno.env.get("TMPDIR")!;
    Deno.removeSync(folder);
    Deno.symlinkSync("/", folder);
    return "put";
  },
  leavesLine: () =>
    started("l() { if [ $1 -gt 0 ]; then l $(($1 - 1)) & fi; sleep 300; }; l 25 &"),
  fillsFolder: () => {
    const folder = Deno.env.get("TMPDIR");
    const bytes = new Uint8Array(100_000);
    for (let i = 0; i < 100; i++) Deno.writeFileSync(`${folder}/${i}`, bytes);
    let deep = folder;
    for (let i = 0; i < 50; i++) Deno.mkdirSync(deep += "/deep");
    Deno.symlinkSync("/", `${folder}/root`);
    Deno.chmodSync(`${folder}/deep`, 0);
    return "filled";
  },
  opensMuch: () => {
    for (let i = 0; i < 200; i++) Deno.openSync("/dev/null");
    return "opened";
  },
  breaksOffStream: async function* () {
    yield "first";
    await sleep(1);
    throw new RangeError("in the middle");
  },
  exitsInStream: async function* () {
    yield "first";
    await sleep(5);
    Deno.exit(4);
  },
  stallsInStream: async function* () {
    yield "first";
    await new Promise(() => setInterval(() => {}, 1_000));
  },
  rejectsLater: (_event, context) => {
    context.waitUntil(sleep(2).then(() => { throw new Error("too late"); }));
    return "answered";
  },
  exitsLater: (_event, context) => {
    context.waitUntil(sleep(2).then(() => Deno.exit(5)));
    return "answered";
  },
  deletesDeno: () => {
    delete (globalThis as any).Deno;
    (Object.prototype as any).toJSON = () => undefined;
    return "deleted";
  },
  breaksBuiltins: () => {
    JSON.stringify = () => { throw 1; };
    String.prototype.split = () => { throw 1; };
    return "broken";
  },
  leavesGroup: () => {
    const { symbols } = Deno.dlopen("libc.so.6", {
      setpgid: { parameters: ["i32", "i32"], result: "i32" },
      getpgid: { parameters: ["i32"], result: "i32" },
    });
    return symbols.setpgid(0, symbols.getpgid(Deno.ppid));
  },
};

export function handler(event: any, context: any) {
  return cases[event.case](event, context);
}
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to behave.

    Attributes:
        case: Name in the module.
        error_types: Any of these is what the caller is told; empty: a result.
        is_streamed: The answer comes in pieces, an error in its trailers.
        timeout_s: The function's timeout for this event.
        event: Sent instead of JSON with the case's name.
        needs_cgroup: Only where the kernel limits memory and processes.
    """

    case: str
    error_types: tuple[str, ...] = ()
    is_streamed: bool = False
    timeout_s: float = 20.0
    event: bytes | None = None
    needs_cgroup: bool = False


GOOD = [
    Kind("echo"),
    Kind("waits"),
    Kind("logs"),
    Kind("worksLater"),
    Kind("streams", is_streamed=True),
]
# A timeout has to be long enough for a busy machine to tell one from a slow answer.
SHORT_S = 0.8
HOSTILE = [
    Kind("throws", ("RangeError",)),
    Kind("throwsProxy", ("object",)),
    Kind("rejectsUnawaited", ("Runtime.UnhandledPromiseRejection",)),
    Kind("neverSettles", ("Runtime.HandlerNeverSettled",)),
    Kind("exitsWith0", ("Runtime.ExitError",)),
    Kind("exitsWith3", ("Runtime.ExitError",)),
    Kind("segfaults", ("Runtime.ExitError",)),
    # Whose SIGKILL it was can be told only where the kernel counts its own.
    Kind("killsItself", ("Runtime.ExitError", "Runtime.OutOfMemory")),
    Kind("stopsItself", ("Runtime.InvokeTimeout",), timeout_s=SHORT_S),
    Kind("exhaustsHeap", ("Runtime.OutOfMemory",)),
    Kind("exhaustsMemory", ("Runtime.OutOfMemory",), needs_cgroup=True),
    # Deno itself may be in need of one more thread then.
    Kind("exhaustsProcesses", ("result", "Runtime.ExitError"), needs_cgroup=True),
    Kind("loops", ("Runtime.InvokeTimeout",), timeout_s=SHORT_S),
    Kind("loopsLogging", ("Runtime.InvokeTimeout",), timeout_s=SHORT_S),
    Kind("neverReturns", ("Runtime.InvokeTimeout",), timeout_s=SHORT_S),
    Kind("ignoresTheSignal", ("Runtime.InvokeTimeout",), timeout_s=SHORT_S),
    Kind("writesGarbage"),
    Kind("tearsFrames"),
    Kind("leavesChild"),
    Kind("leavesSession"),
    Kind("leavesDaemon"),
    Kind("leavesUnmarked"),
    Kind("leavesStubborn"),
    Kind("leavesRenamed"),
    Kind("leavesPipes"),
    Kind("leavesForking"),
    Kind("leavesTimers"),
    Kind("leavesServer"),
    Kind("leavesWorker"),
    Kind("leavesGroup"),
    Kind("closesStdout", ("Runtime.ExitError",)),
    Kind("floodsStderr"),
    Kind("returnsTooMuch", ("Function.ResponseSizeTooLarge",)),
    Kind("returnsBigInt", ("Runtime.JSONStringifyError",)),
    Kind("leavesLine"),
    Kind("fillsFolder"),
    Kind("deepensFolder"),
    Kind("putsFileInItsPlace"),
    Kind("putsLinkInItsPlace"),
    Kind("opensMuch"),
    Kind("breaksOffStream", ("RangeError",), is_streamed=True),
    Kind("exitsInStream", ("Runtime.ExitError",), is_streamed=True),
    Kind("stallsInStream", ("Runtime.InvokeTimeout",), is_streamed=True,
         timeout_s=SHORT_S),
    Kind("rejectsLater"),
    Kind("exitsLater"),
    Kind("deletesDeno"),
    Kind("breaksBuiltins"),
    Kind("noJson", ("Runtime.UnmarshalError",), event=b'{"case": "echo"'),
    Kind("noText", ("Runtime.UnmarshalError",), event=b'"\xff\xfe"'),
    Kind("nothing", ("Runtime.UnmarshalError",), event=b""),
]  # fmt: skip
