// One value of each source of randomness. Math.random is used while the module loads, so
// that it has a state that a fork copies; a module that uses another one then is refused.
import nodeCrypto from "node:crypto";
import { promisify } from "node:util";
import vm from "node:vm";
import { reseed } from "./child.mjs";

const { subtle } = crypto;
const hex = (bytes) =>
  Array.from(new Uint8Array(bytes), (b) => b.toString(16)).join(" ");
const secret = async (algorithm, uses) => {
  return hex(
    await subtle.exportKey(
      "raw",
      await subtle.generateKey(algorithm, true, uses),
    ),
  );
};
const privateKey = async (algorithm, uses) => {
  const { privateKey } = await subtle.generateKey(algorithm, true, uses);
  return (await subtle.exportKey("jwk", privateKey)).d;
};
const der = (type, options) => {
  const { privateKey } = nodeCrypto.generateKeyPairSync(type, options);
  return privateKey.export({ format: "der", type: "pkcs8" }).toString("hex");
};

// Both have no state of their own before they are first asked.
const context = vm.createContext();
// Every child draws from these; from the others, which take longer, each tenth child.
const kinds = {
  newContext: () => vm.runInNewContext("Math.random()"),
  context: () => vm.runInContext("Math.random()", context),
  mathRandom: () => Math.random(),
  randomUUID: () => crypto.randomUUID(),
  getRandomValues: () => hex(crypto.getRandomValues(new Uint8Array(16))),
  temporaryName: () => {
    const file = Deno.makeTempFileSync();
    Deno.removeSync(file);
    return file;
  },
};
const quick = {
  aes: () => secret({ name: "AES-GCM", length: 128 }, ["encrypt"]),
  hmac: () => secret({ name: "HMAC", hash: "SHA-256" }, ["sign"]),
  nodeRandomBytes: () => nodeCrypto.randomBytes(16).toString("hex"),
  nodeRandomBytesLater: async () =>
    hex(await promisify(nodeCrypto.randomBytes)(16)),
  nodeRandomUUID: () => nodeCrypto.randomUUID(),
  nodeRandomInt: () =>
    [1, 2, 3].map(() => nodeCrypto.randomInt(2 ** 47)).join(),
  nodeRandomIntLater: async () => {
    const draw = promisify(nodeCrypto.randomInt);
    return [await draw(2 ** 47), await draw(2 ** 47)].join();
  },
  nodeRandomFill: () => hex(nodeCrypto.randomFillSync(new Uint8Array(16))),
  nodeRandomFillLater: async () => {
    return hex(await promisify(nodeCrypto.randomFill)(new Uint8Array(16)));
  },
  nodeKey: () =>
    nodeCrypto.generateKeySync("aes", { length: 128 }).export().toString("hex"),
  temporaryNameLater: async () => {
    const file = await Deno.makeTempFile();
    await Deno.remove(file);
    return file;
  },
};
const slow = {
  ecdsa: () => privateKey({ name: "ECDSA", namedCurve: "P-256" }, ["sign"]),
  ed25519: () => privateKey("Ed25519", ["sign"]),
  x25519: () => privateKey("X25519", ["deriveBits"]),
  nodeEd25519: () => der("ed25519"),
  nodeEc: () => der("ec", { namedCurve: "P-256" }),
  nodeEcdh: () => {
    const exchange = nodeCrypto.createECDH("prime256v1");
    exchange.generateKeys();
    return exchange.getPrivateKey("hex");
  },
};
const worker = () => {
  const source =
    "data:application/javascript,postMessage([Math.random(),crypto.randomUUID()])";
  const worker = new Worker(source, { type: "module" });
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data.join());
    worker.onerror = reject;
  }).finally(() => worker.terminate());
};

const draw = async (sources) => {
  const values = {};
  for (const name in sources) values[name] = await sources[name]();
  return values;
};
kinds.mathRandom();

export async function handler({ all }) {
  reseed();
  return await draw(all ? { ...kinds, ...quick, ...slow, worker } : kinds);
}
