// What a child of a template does before its event: this will be runtime.js's work.

const spill = new Uint8Array(1024);
const seed = new Uint32Array(4);
const fill = crypto.getRandomValues.bind(crypto);
const uuid = crypto.randomUUID.bind(crypto);

/** Give every generator of this process numbers that no other process has. */
export function reseed() {
  fill(spill); // what Deno's generator has in store is the template's; then it reseeds
  for (let i = 0; i < 128; i++) uuid(); // as many as it makes at a time
  fill(seed);
}

/** In the place of V8's generator, whose state cannot be set: xoshiro128**. */
Math.random = function random() {
  let [a, b, c, d] = seed;
  const product = Math.imul(b, 5);
  const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
  const shifted = b << 9;
  c ^= a;
  d ^= b;
  b ^= c;
  a ^= d;
  c ^= shifted;
  d = (d << 11) | (d >>> 21);
  seed[0] = a, seed[1] = b, seed[2] = c, seed[3] = d;
  return result / 4294967296;
};

/** Let Deno.pid and process.pid be this process's number. */
export function setPid(pid) {
  const fixed = { configurable: true, enumerable: true };
  Object.defineProperty(Deno, "pid", { ...fixed, get: () => pid });
  const internals = Deno[Deno.internal];
  if (!internals.__nodeProcessBootstrapped) return;
  // Deno's own function reads Deno.pid, and right after it Deno.ppid: there it ends.
  const enough = new Error("enough");
  const ppid = Object.getOwnPropertyDescriptor(Deno, "ppid");
  const stop = () => {
    throw enough;
  };
  Object.defineProperty(Deno, "ppid", { ...fixed, get: stop });
  internals.__nodeProcessBootstrapped = false;
  const { argv0, denoVersion } = internals.__nodeBootstrapArgs ?? {};
  try {
    internals.__bootstrapNodeProcess(
      argv0,
      [],
      denoVersion ?? {},
      "",
      false,
      true,
    );
  } catch (error) {
    if (error !== enough) throw error;
  } finally {
    internals.__nodeProcessBootstrapped = true;
    Object.defineProperty(Deno, "ppid", ppid);
  }
}

/** The number the system gives this process. */
export function systemPid() {
  return Number(Deno.readTextFileSync("/proc/self/stat").split(" ")[0]);
}
