// @ts-check
/**
 * The steps of a process that was forked from a loaded one before it is like any
 * other: be told apart from the process it was forked from, and from its siblings.
 *
 * @module
 */

/** @import { Places, Resume } from "./input.js" */
import { linger } from "./ending.js";
import { hello } from "./input.js";
import { encode, exit, internals, writeStderr } from "./primordials.js";

/** Own process number; 0: that of the process that loaded the module. */
let ownPid = 0;
/** State of the generator that stands in for `Math.random`. */
const random = new Uint32Array(4);
const { apply } = Reflect;
/** @type {(descriptor: Deno.PermissionDescriptor) => Deno.PermissionState} */
let revoke;

/**
 * Prepare a process that is to be forked, before the handler's module can take what
 * would be the same in each of its children.
 *
 * @param {Places | null} places
 */
export function prepareForForks(places) {
  const { imul, random: own } = Math;
  // xoshiro128**, by Blackman and Vigna. V8's own state would be shared by all forks.
  const next = () => {
    const second = random[1];
    const turned = imul(second, 5);
    const value = imul((turned << 7) | (turned >>> 25), 9) >>> 0;
    random[2] ^= random[0];
    random[3] ^= second;
    random[1] ^= random[2];
    random[0] ^= random[3];
    random[2] ^= second << 9;
    random[3] = (random[3] << 11) | (random[3] >>> 21);
    return value;
  };
  const { random: replaced } = {
    random() {
      if (ownPid === 0) return own();
      return ((next() >>> 5) * 67_108_864 + (next() >>> 6)) /
        9_007_199_254_740_992;
    },
  };
  Math.random = replaced;
  const { pid } = Deno;
  Object.defineProperty(Deno, "pid", {
    get: () => ownPid || pid,
    enumerable: true,
    configurable: true,
  });
  if (places !== null) prepareToMove();
  rehearseDrawing();
}

/**
 * Have V8 compile the functions that draw random numbers, and draw none: a process that
 * has drawn some is not forked. More bytes than are allowed are refused before the draw.
 */
function rehearseDrawing() {
  try {
    crypto.getRandomValues(new Uint8Array(65_537));
  } catch {
    // A QuotaExceededError.
  }
}

/**
 * Wait for a timer. Deno loads and compiles what timers need, 12 ms of work, when the
 * first one is set and when it has run out; done here, no child has to do it again.
 *
 * @returns {Promise<void>}
 */
export function rehearseTimer() {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/**
 * Give up this process's own folder, which none of its children may use, as each child
 * gives up the others'. V8 compiles a function when it is first called, and again when it
 * has been called often, so the children find these functions compiled.
 *
 * @param {Places} places
 */
export function rehearseGivingUp({ folders, revoked }) {
  for (let turn = 0; turn < folders.length; turn++) {
    keepOnly({ folders: [folders[0]], revoked }, undefined);
  }
}

/** Prepare for children whose folder has another path than this process's. */
function prepareToMove() {
  const { permissions } = Deno;
  const revokeSync = permissions.revokeSync.bind(permissions);
  const { get: stateOf } = /** @type {{ get: () => Deno.PermissionState }} */ (
    Object.getOwnPropertyDescriptor(Deno.PermissionStatus.prototype, "state")
  );
  revoke = (descriptor) => apply(stateOf, revokeSync(descriptor), []);
  // A module that asks for this process's folder is told a path that leads to that of
  // each fork, or is not forked (docs/native.md); the library sees who asks for the
  // variable, but not who asks for all of them.
  const { env } = Deno;
  const { get, toObject } = env;
  const { toObject: replaced } = {
    toObject() {
      const all = toObject();
      for (const name of ["TMPDIR", "HOME"]) {
        if (name in all) all[name] = /** @type {string} */ (get(name));
      }
      return all;
    },
  };
  env.toObject = replaced;
}

/**
 * Be a process of its own, in the child.
 *
 * @param {Resume} line
 */
export function resume({ marker, pid, lingers = false, place }) {
  // First: from here on, code of the handler's module may run.
  if (hello.places !== null) keepOnly(hello.places, place);
  hello.marker = marker;
  if (lingers) linger();
  ownPid = pid;
  seed();
  if (internals.__nodeProcessBootstrapped) renewNodeProcess();
}

/**
 * Give up the folders of all other children.
 *
 * @param {Places} places
 * @param {number | undefined} own
 */
function keepOnly({ folders, revoked }, own) {
  for (let i = 0; i < folders.length; i++) {
    for (let j = 0; i !== own && j < revoked.length; j++) {
      const descriptor = {
        name: revoked[j][0],
        path: folders[i] + revoked[j][1],
      };
      if (revoke(descriptor) === "granted") {
        writeStderr(encode("Cannot give up the folder of another process\n"));
        // Without the module's listeners of "unload".
        Reflect.set(globalThis, Symbol.for("Deno.isUnloadDispatched"), true);
        exit(70);
      }
    }
  }
}

/**
 * Have `process.pid` read again. Deno's Node layer reads `Deno.pid` when it is set up,
 * and its property cannot be replaced, so it is set up once more; what it reads next,
 * `Deno.ppid`, ends that, before it changes what a module may have replaced.
 */
function renewNodeProcess() {
  const { argv0, denoVersion } = internals.__nodeBootstrapArgs ?? {};
  const argv = [...globalThis.process.argv];
  const enough = new Error("process.pid is set");
  const ppid = /** @type {PropertyDescriptor} */ (
    Object.getOwnPropertyDescriptor(Deno, "ppid")
  );
  const stop = () => {
    throw enough;
  };
  Object.defineProperty(Deno, "ppid", { ...ppid, get: stop });
  const kept = ["stdin", "stdout", "stderr"].map((
    name,
  ) => /** @type {const} */ ([
    name,
    Object.getOwnPropertyDescriptor(globalThis.process, name),
  ]));
  internals.__nodeProcessBootstrapped = false;
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
    for (const [name, descriptor] of kept) {
      if (descriptor) {
        Object.defineProperty(globalThis.process, name, descriptor);
      }
    }
    globalThis.process.argv.splice(0, argv.length, ...argv);
  }
}

/**
 * Deno hands out random numbers from blocks of 256 bytes, made ahead, and a fork has a
 * copy of the block that is in use: only the next one is made anew. So that much is
 * thrown away.
 */
function seed() {
  const fresh = new Uint32Array(128);
  do {
    crypto.getRandomValues(fresh);
    random.set(fresh.subarray(-4));
  } while (random.every((part) => part === 0));
}
