"""Hostile handlers, and the errors that their callers must receive.

One module with one function per kind; ``attacks.py`` is its second half. Many kinds
need all permissions, so each names the permissions under which it is run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from tests.soak import attacks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.soak.environment import Setup

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
  return cases[event.does](event, context);
}
"""
SOURCE += attacks.SOURCE


class Server(Enum):
    """Effect of a kind on concurrent events, if one process serves all."""

    NOT_RUN = "spoils the process for all that follow, as the documentation says"
    HARMLESS = "hurts nobody but itself"
    ENDS_IT = "whoever is in the process by then loses it"
    SPREADS = "whoever is in the process by then may be told the same error"


ALL = ("all",)
BOTH = ("all", "default")
MEMORY = "Runtime.OutOfMemory"
# Error types of an event whose process was ended by another event.
COLLATERAL = ("Runtime.ExitError", MEMORY, "Runtime.WorkerProtocolError")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of behaviour.

    Attributes:
        case: Name of the kind.
        error_types: The caller must receive one of these; empty: a result.
        is_streamed: The response is streamed, with errors in its trailers.
        timeout_s: The function's timeout for this event.
        event: Sent instead of JSON with the name.
        needs_cgroup: Run only if the kernel limits memory and processes.
        under: The permissions under which it is run.
        server: Its effect on others, if one process serves all.
        does: Name of the function in the module; empty: the same as ``case``.
        extra: Additional members of the event.
        takes_memory: ``Runtime.OutOfMemory`` is correct too if memory is limited, and
            the kernel may kill processes.
        needs_all: Takes resources that concurrent events need: run only one at once.
        lingers_s: Events may be affected until so long after the response.
    """

    case: str
    error_types: tuple[str, ...] = ()
    is_streamed: bool = False
    timeout_s: float = 20.0
    event: bytes | None = None
    needs_cgroup: bool = False
    under: tuple[str, ...] = ALL
    server: Server = Server.NOT_RUN
    does: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)
    takes_memory: bool = False
    needs_all: bool = False
    lingers_s: float = 0.0

    def body(self, number: int, api: str) -> bytes:
        """Return the event.

        Args:
            number: Number of the event.
            api: Address of the Runtime API.
        """
        if self.event is not None:
            return self.event
        event = {"case": self.case, "does": self.does or self.case, "number": number}
        return json.dumps({**event, "api": api, **self.extra}).encode()

    def fits(self, setup: Setup, *, with_cgroup: bool) -> bool:
        """Return whether this kind is run in an environment."""
        return (
            setup.permissions in self.under
            and (with_cgroup or not self.needs_cgroup)
            and not (setup.is_managed and self.needs_all)
            and not (setup.is_server and self.server is Server.NOT_RUN)
        )

    @property
    def spreads(self) -> tuple[str, ...]:
        """Error types that it may cause for concurrent events in the same process."""
        match self.server:
            case Server.ENDS_IT:
                return COLLATERAL
            case Server.SPREADS:
                # An error that belongs to no event; the process continues until it
                # exits.
                return (*self.error_types, "RangeError")
        return ()

    def outcomes(self, setup: Setup) -> tuple[str, ...]:
        """Return the error types that the caller may receive."""
        found = self.error_types or ("result",)
        if self.takes_memory and setup.memory_mb is not None:
            found = (*found, MEMORY)
        return found


def anywhere(case: str, error_types: tuple[str, ...] = (), **more: Any) -> Kind:
    """Return a kind that needs no permission."""
    return Kind(case, error_types, under=BOTH, **more)


def harmless(case: str, error_types: tuple[str, ...] = (), **more: Any) -> Kind:
    """Return a kind that affects no other event, even in the same process."""
    return anywhere(case, error_types, server=Server.HARMLESS, **more)


def spreading(case: str, error_types: tuple[str, ...] = (), **more: Any) -> Kind:
    """Return a kind with an error that cannot be attributed to an event."""
    return anywhere(case, error_types, server=Server.SPREADS, **more)


def ending(case: str, error_types: tuple[str, ...] = (), **more: Any) -> Kind:
    """Return a kind that ends its process."""
    return anywhere(case, error_types, server=Server.ENDS_IT, **more)


GOOD = [
    harmless("echo"),
    harmless("waits"),
    harmless("logs"),
    harmless("worksLater"),
    harmless("streams", is_streamed=True),
]
# Timeouts must be so long that a busy machine can distinguish them from slow responses.
SHORT_S = 0.8
EXIT = ("Runtime.ExitError",)
TIMEOUT = ("Runtime.InvokeTimeout",)
# A forged frame is a response, or breaks the protocol.
FORGED = ("Forged", "Runtime.WorkerProtocolError", "Runtime.ExitError")
# Shape, bytes, number of parts before the last one, and whether after a stream.
FORGERIES = [
    ("objects", 7_200_000, 0, False),
    ("objects", 7_200_000, 0, True),
    ("objects", 6_000_000, 7, False),
    ("objects", 400_000, 0, False),
    ("list", 7_200_000, 0, False),
    ("keys", 7_200_000, 0, False),
    ("nested", 7_200_000, 0, False),
    ("nested", 2_000, 0, True),
    ("message", 7_200_000, 0, False),
    ("stack", 7_200_000, 0, False),
    ("stack", 7_200_000, 0, True),
]
FORGING = [
    anywhere(
        f"forges-{shape}-{size}{'-parts' * bool(parts)}{'-stream' * is_stream}",
        FORGED,
        is_streamed=is_stream,
        takes_memory=True,
        does="forges",
        extra={"shape": shape, "bytes": size, "parts": parts, "isStream": is_stream},
    )
    for shape, size, parts, is_stream in FORGERIES
]
FAILING_LATE = [
    harmless(
        f"failsLate-{length}{'-wide' * (unit != 'm')}",
        ("RangeError",),
        is_streamed=True,
        does="failsLate",
        extra={"unit": unit, "length": length},
    )
    for unit, length in [
        ("m", 2000), ("m", 2800), ("m", 3000), ("m", 4000), ("m", 5000),
        ("m", 200_000), ("\u20ac", 1000), ("\u20ac", 3000), ("\r\n", 1500),
        ("\0", 700),
    ]
]  # fmt: skip
HOSTILE = [
    harmless("throws", ("RangeError",)),
    harmless("throwsProxy", ("object",)),
    spreading("rejectsUnawaited", ("Runtime.UnhandledPromiseRejection",)),
    anywhere("neverSettles", ("Runtime.HandlerNeverSettled",)),
    ending("exitsWith0", EXIT),
    ending("exitsWith3", EXIT),
    Kind("segfaults", EXIT, server=Server.ENDS_IT),
    # The sender of a SIGKILL is known only if the kernel counts its own.
    Kind("killsItself", ("Runtime.ExitError", MEMORY), server=Server.ENDS_IT),
    Kind("stopsItself", TIMEOUT, timeout_s=SHORT_S),
    ending("exhaustsHeap", (MEMORY,), takes_memory=True),
    anywhere("exhaustsMemory", (MEMORY,), needs_cgroup=True, takes_memory=True),
    # Deno itself may need another thread then.
    Kind("exhaustsProcesses", ("result", "Runtime.ExitError"), needs_cgroup=True,
         takes_memory=True, needs_all=True),
    anywhere("loops", TIMEOUT, timeout_s=SHORT_S),
    anywhere("loopsLogging", TIMEOUT, timeout_s=SHORT_S),
    harmless("neverReturns", TIMEOUT, timeout_s=SHORT_S),
    anywhere("ignoresTheSignal", TIMEOUT, timeout_s=SHORT_S),
    anywhere("writesGarbage", takes_memory=True),
    Kind("tearsFrames", takes_memory=True),
    Kind("leavesChild"),
    Kind("leavesSession"),
    Kind("leavesDaemon"),
    Kind("leavesUnmarked"),
    Kind("leavesStubborn"),
    Kind("leavesRenamed"),
    Kind("leavesPipes"),
    Kind("leavesForking", takes_memory=True),
    anywhere("leavesTimers"),
    anywhere("leavesServer"),
    anywhere("leavesWorker"),
    Kind("leavesGroup"),
    anywhere("closesStdout", EXIT),
    harmless("floodsStderr", takes_memory=True),
    harmless("returnsTooMuch", ("Function.ResponseSizeTooLarge",), takes_memory=True),
    harmless("returnsBigInt", ("Runtime.JSONStringifyError",)),
    Kind("leavesLine", takes_memory=True),
    Kind("fillsFolder"),
    Kind("deepensFolder"),
    Kind("putsFileInItsPlace"),
    Kind("putsLinkInItsPlace"),
    Kind("opensMuch"),
    harmless("breaksOffStream", ("RangeError",), is_streamed=True),
    ending("exitsInStream", EXIT, is_streamed=True),
    harmless("stallsInStream", TIMEOUT, is_streamed=True, timeout_s=SHORT_S),
    harmless("rejectsLater"),
    ending("exitsLater", lingers_s=1.0),
    anywhere("deletesDeno"),
    anywhere("breaksBuiltins"),
    harmless("noJson", ("Runtime.UnmarshalError",), event=b'{"case": "echo"'),
    harmless("noText", ("Runtime.UnmarshalError",), event=b'"\xff\xfe"'),
    harmless("nothing", ("Runtime.UnmarshalError",), event=b""),

    # Forged frames at the size limit and above it.
    *FORGING,
    anywhere("forgesType", (*FORGED, "Forged\u2026")),
    harmless("forgesRecords"),

    # Longer trailers than Go's HTTP server reads.
    *FAILING_LATE,
    harmless("failsLateDeep", ("AggregateError",), is_streamed=True,
             extra={"length": 20}),

    harmless("emptiesFolder"),

    spreading("throwsInTimer", ("RangeError",)),
    spreading("throwsInTimerLater", lingers_s=0.2),
    spreading("throwsInTimerWaited", lingers_s=0.2),

    # Deno caches loaded modules: on disk, and in the process while it runs.
    *(
        anywhere(case, takes_memory=True, extra={"count": 30, "bytes": 100_000})
        for case in ("importsData", "importsBlobs", "importsFiles")
    ),

    # Files that have to be removed, with hardly any time left.
    anywhere("leavesFiles", extra={"count": 30_000}),
    anywhere("leavesLongNames", extra={"count": 8_000}),
    anywhere("leavesFilesUntilTheEnd", ("result", *TIMEOUT), timeout_s=4.0,
             extra={"leftMs": 900}),

    # Module loader: access to the Runtime API, and trusted authorities.
    anywhere("stealsByProxy"),
    anywhere("stealsByNode"),
    anywhere("stealsByWorker"),
    anywhere("stealsByConnect"),
    anywhere("choosesTrust"),

    # The supervisor's folder.
    *(
        Kind(f"spoilsState-{how}", does="spoilsState", extra={"how": how},
             needs_all=True)
        for how in ("truncatedEntry", "otherEntry", "closedEntry", "entryFolder",
                    "closed", "closedInside", "link", "linkToParent", "file", "removed",
                    "emptied", "noCache", "cacheFile", "spoiltCache")
    ),
]  # fmt: skip
