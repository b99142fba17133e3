"""Handlers that attack shared parts of an environment: frames, disk, module loader.

The second half of the module in ``hostile.py``. Most handlers need only the default
permissions. ``event.api`` is the address of the Runtime API, which a handler on Lambda
can guess.
"""

from __future__ import annotations

SOURCE = """
const temp = () => Deno.env.get("TMPDIR")!;
const stateFolder = () => temp().slice(0, temp().lastIndexOf("/"));
const decode = (bytes: Uint8Array) => String.fromCharCode(...bytes);

/** The process's own marker: every record of the log is written with it. */
function ownMarker(): string {
  const { subarray } = Uint8Array.prototype;
  let found = "";
  Uint8Array.prototype.subarray = function (...ends) {
    if (found === "") found = decode(subarray.call(this, 0, 32));
    return subarray.apply(this, ends);
  } as typeof subarray;
  console.log("shows the marker");
  Uint8Array.prototype.subarray = subarray;
  if (!/^[0-9a-f]{32}$/.test(found)) {
    throw Object.assign(new Error("it is not there"), { name: "NoMarker" });
  }
  return found;
}

const writeRaw: (bytes: Uint8Array) => number = Object.getPrototypeOf(Deno.stdout)
  .writeSync.bind(Deno.stdout);

function forge(marker: string, kind: string, body: string, more = "") {
  const length = encoder.encode(body).length;
  const head = `${marker}{"kind":"${kind}","bytes":${length}${more}}`;
  const bytes = encoder.encode(`${head}\\n${body}${marker}\\n`);
  for (let at = 0; at < bytes.length;) at += writeRaw(bytes.subarray(at));
}

const MEBIBYTE = 1024 * 1024;
const filled = (unit: string, bytes: number) =>
  unit.repeat(Math.floor(bytes / unit.length));
/** What parsing makes much more of. */
const bodies: Record<string, (bytes: number) => string> = {
  objects: (bytes) => `{"errorType":"Forged","a":[${filled('{"a":0},', bytes)}0]}`,
  list: (bytes) => `[${filled("{},", bytes)}0]`,
  keys: (bytes) => {
    const keys = Array.from({ length: bytes / 13 }, (_, i) => `"${1e7 + i}":0`);
    return `{"errorType":"Forged",${keys.join(",")}}`;
  },
  nested: (bytes) => filled("[", bytes / 2) + filled("]", bytes / 2),
  message: (bytes) => `{"errorType":"Forged","errorMessage":"${filled("m", bytes)}"}`,
  stack: (bytes) => {
    const lines = filled('"at f (file:///a.ts:1:2)",', bytes);
    return `{"errorType":"Forged","errorMessage":"","stackTrace":[${lines}""]}`;
  },
};

const PROXIES = [
  "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy",
];
const attempt = async (work: () => unknown) => {
  try {
    return await work();
  } catch {
    return undefined;
  }
};

/** Takes connections and closes them; whoever uses it as a proxy gets no further. */
function deadEnd(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  (async () => {
    for await (const connection of listener) connection.close();
  })();
  return listener.addr.port;
}

const FILES_LIMIT_MS = 2_000;
function makeFiles(name: (n: number) => string, mayGoOn: (n: number) => boolean) {
  let count = 0;
  while (mayGoOn(count)) {
    Deno.openSync(name(count++), { create: true, write: true }).close();
  }
  return count;
}

function spoilState(how: string) {
  const state = stateFolder();
  const entry = `${state}/entry.mjs`;
  const isFolder = (path: string) => Deno.lstatSync(path).isDirectory;
  // What is lent to processes is closed, to its own user too.
  const visit = (path: string, work: (path: string) => void) => {
    if (isFolder(path)) {
      Deno.chmodSync(path, 0o700);
      for (const { name } of Deno.readDirSync(path)) visit(`${path}/${name}`, work);
    }
    work(path);
  };
  const remove = (path: string) => {
    visit(path, () => {});
    Deno.removeSync(path, { recursive: true });
  };
  const each = (work: (path: string) => void) => {
    for (const { name } of Deno.readDirSync(state)) work(`${state}/${name}`);
  };
  const ways: Record<string, () => void> = {
    truncatedEntry: () => Deno.writeTextFileSync(entry, ""),
    otherEntry: () => Deno.writeTextFileSync(entry, "Deno.exit(9);"),
    closedEntry: () => Deno.chmodSync(entry, 0),
    entryFolder: () => (remove(entry), Deno.mkdirSync(entry)),
    closed: () => Deno.chmodSync(state, 0),
    closedInside: () => each((path) => Deno.chmodSync(path, 0)),
    link: () => (remove(state), Deno.symlinkSync("/nowhere/at/all", state)),
    // Not to anything of this machine's: the soak may run as root.
    linkToParent: () => (remove(state), Deno.symlinkSync(".", state)),
    file: () => (remove(state), Deno.writeTextFileSync(state, "x")),
    removed: () => remove(state),
    emptied: () => each(remove),
    noCache: () => remove(`${state}/deno_dir`),
    cacheFile: () => {
      remove(`${state}/deno_dir`);
      Deno.writeTextFileSync(`${state}/deno_dir`, "x");
    },
    spoiltCache: () =>
      visit(`${state}/deno_dir`, (path) => {
        if (!Deno.lstatSync(path).isFile) return;
        Deno.chmodSync(path, 0o600);
        Deno.writeTextFileSync(path, "spoilt");
      }),
  };
  ways[how]();
}

Object.assign(cases, {
  forges: (event) => {
    const { shape, bytes, parts = 0, isStream = false } = event;
    const marker = ownMarker();
    const body = bodies[shape](bytes);
    if (isStream) {
      forge(marker, "STREAM", "", ',"contentType":"text/plain"');
      forge(marker, "CHUNK", "first");
    }
    const size = Math.ceil(body.length / (parts + 1));
    for (let part = 0; part < parts; part++) {
      forge(marker, "PART", body.slice(part * size, (part + 1) * size));
    }
    forge(marker, "ERROR", body.slice(parts * size), ',"errorType":"Forged"');
    forge(marker, "DONE", "");
    Deno.exit(0);
  },
  forgesType: () => {
    const marker = ownMarker();
    forge(marker, "ERROR", "{}", `,"errorType":"${"Forged".repeat(150)}"`);
    Deno.exit(0);
  },
  forgesRecords: (event) => {
    const marker = ownMarker();
    const record = JSON.stringify({ requestId: "another", message: "x" });
    const line = `${marker}${record}\\n`;
    const bytes = encoder.encode(line.repeat(1_000));
    for (let at = 0; at < bytes.length;) {
      at += Deno.stderr.writeSync(bytes.subarray(at));
    }
    return event.number;
  },

  failsLate: async function* ({ unit, length }: any) {
    yield "first";
    await sleep(1);
    throw new RangeError(unit.repeat(length));
  },
  failsLateDeep: async function* ({ length }: any) {
    yield "first";
    const deep = (left: number): never => {
      if (left > 0) return deep(left - 1);
      const errors = Array.from({ length }, (_, i) => new TypeError(`${i}`.repeat(99)));
      throw new AggregateError(errors, "many", { cause: new Error("c".repeat(2_000)) });
    };
    deep(40);
  },

  emptiesFolder: () => {
    for (const { name } of Deno.readDirSync(temp())) {
      Deno.removeSync(`${temp()}/${name}`, { recursive: true });
    }
    return "emptied";
  },

  throwsInTimer: () => {
    setTimeout(() => { throw new RangeError("in a timer"); }, 2);
    return sleep(5_000);
  },
  throwsInTimerLater: async () => {
    setTimeout(() => { throw new RangeError("after the answer"); }, 2);
    return "answered";
  },
  throwsInTimerWaited: (_event, context) => {
    setTimeout(() => { throw new RangeError("meanwhile"); }, 2);
    context.waitUntil(sleep(20));
    return "answered";
  },

  importsData: async ({ number, count, bytes }: any) => {
    const filling = `/*${"d".repeat(bytes)}*/`;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      const type = i % 2 ? "text/javascript" : "application/typescript";
      const text = `${filling}export default ${number}+${i};`;
      const url = `data:${type},${encodeURIComponent(text)}`;
      sum += (await import(url)).default - number;
    }
    return sum;
  },
  importsBlobs: async ({ number, count, bytes }: any) => {
    const filling = `/*${"b".repeat(bytes)}*/`;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      const type = i % 2 ? "text/javascript" : "application/typescript";
      const text = `${filling}export default ${number}+${i};`;
      const url = URL.createObjectURL(new Blob([text], { type }));
      sum += (await import(url)).default - number;
    }
    return sum;
  },
  importsFiles: async ({ number, count, bytes }: any) => {
    const filling = `/*${"f".repeat(bytes)}*/`;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      const path = `${temp()}/${i}.${i % 2 ? "mjs" : "ts"}`;
      const type = i % 2 ? "" : ": number";
      Deno.writeTextFileSync(
        path, `${filling}const value${type} = ${number}+${i}; export default value;`,
      );
      sum += (await import(`file://${path}`)).default - number;
    }
    return sum;
  },

  leavesFiles: ({ count }: any) => {
    const end = Date.now() + FILES_LIMIT_MS;
    return makeFiles((n) => `${temp()}/${n}`, (n) => n < count && Date.now() < end);
  },
  leavesLongNames: ({ count }: any) => {
    const long = "n".repeat(240);
    const end = Date.now() + FILES_LIMIT_MS;
    let folder = temp();
    const made = makeFiles((n) => {
      // Deep enough to be no single folder, short enough to be a path.
      if (n % 400 === 0 && folder.length < 3_000) {
        folder += `/${long}`;
        Deno.mkdirSync(folder);
      }
      return `${folder}/${n}${long}`;
    }, (n) => n < count && Date.now() < end);
    return made;
  },
  leavesFilesUntilTheEnd: ({ leftMs }: any, context) => {
    makeFiles(
      (n) => `${temp()}/${n}`,
      (n) => n % 100 > 0 || context.getRemainingTimeInMillis() > leftMs,
    );
    return "left";
  },

  stealsByProxy: async ({ api, number }: any, context) => {
    for (const name of PROXIES) {
      await attempt(() => Deno.env.set(name, `http://${api}`));
    }
    const path = "2018-06-01/runtime/invocation/next";
    const json = { with: { type: "json" } };
    const steal = async () => {
      const url = `http://esm.sh:443/${path}?${number}`;
      await attempt(() => import(url, json));
      await attempt(() => import(`https://esm.sh/${path}?${number}`, json));
    };
    context.waitUntil(steal());
    return "tried";
  },
  stealsByNode: async ({ api, number }: any) => {
    const { default: process } = await import("node:process");
    for (const name of PROXIES) {
      await attempt(() => process.env[name] = `http://${api}`);
    }
    await attempt(() =>
      import(`http://jsr.io:443/2018-06-01/runtime/invocation/next?${number}`, {
        with: { type: "json" },
      })
    );
    return "tried";
  },
  stealsByWorker: async ({ api, number }: any) => {
    await attempt(() => Deno.env.set("HTTP_PROXY", `http://${api}`));
    await attempt(async () => {
      const url = `http://esm.sh:443/2018-06-01/runtime/invocation/next?w${number}`;
      const worker = new Worker(url, { type: "module" });
      await new Promise((resolve) => {
        worker.onerror = (event) => (event.preventDefault(), resolve(null));
        worker.onmessage = resolve;
        setTimeout(resolve, 200);
      });
      worker.terminate();
    });
    return "tried";
  },
  stealsByConnect: async ({ api, number }: any) => {
    await attempt(() => Deno.env.set("HTTPS_PROXY", `http://${api}`));
    await attempt(() => import(`https://esm.sh/${number}`));
    await attempt(() => fetch("https://example.com/"));
    return "tried";
  },
  choosesTrust: async ({ number }: any) => {
    const port = deadEnd();
    const files = [`${temp()}/trust`, `${stateFolder()}/trust`, "/tmp/trust"];
    for (const file of files) {
      await attempt(() => Deno.writeTextFileSync(file, "no certificate"));
      for (const name of ["SSLKEYLOGFILE", "DENO_CERT", "SSL_CERT_FILE",
        "NODE_EXTRA_CA_CERTS"]) {
        await attempt(() => Deno.env.set(name, file));
      }
      await attempt(() => Deno.env.set("DENO_TLS_CA_STORE", "system"));
      await attempt(() => Deno.env.set("HTTPS_PROXY", `http://127.0.0.1:${port}`));
      await attempt(() => import(`https://esm.sh/trust@${number}.0.0`));
    }
    // Where it may write everywhere, these are not to be counted as leftovers.
    for (const file of files) await attempt(() => Deno.removeSync(file));
    return "tried";
  },

  spoilsState: ({ how }: any) => {
    spoilState(how);
    return how;
  },
});
"""
