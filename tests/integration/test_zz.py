import json, os
from tests.integration.conftest import *
SRC = """
const born = performance.now();
import nc from "node:crypto"; import process from "node:process";
const used = [crypto.randomUUID(), Math.random(), nc.randomBytes(8).toString("hex"), nc.randomUUID(), nc.randomInt(1e9)];
await crypto.subtle.generateKey({name:"AES-GCM",length:256}, true, ["encrypt"]);
await crypto.subtle.generateKey({name:"ECDSA",namedCurve:"P-256"}, true, ["sign"]);
const hex = b => [...new Uint8Array(b)].map(x=>x.toString(16).padStart(2,"0")).join("").slice(0,16);
async function more() { return { ppid: process.pid, nb: nc.randomBytes(8).toString("hex"), nu: nc.randomUUID(), ni: nc.randomInt(1e9),
  aes: hex(await crypto.subtle.exportKey("raw", await crypto.subtle.generateKey({name:"AES-GCM",length:256}, true, ["encrypt"]))),
  ec: hex((await crypto.subtle.exportKey("pkcs8", (await crypto.subtle.generateKey({name:"ECDSA",namedCurve:"P-256"}, true, ["sign"])).privateKey)).slice(-60)),
  nk: await new Promise(r => nc.generateKeyPair("ed25519", {}, (e,p,k)=> r(k.export({type:"pkcs8",format:"der"}).toString("hex").slice(-16)))),
  ab: await new Promise(r => nc.randomBytes(8, (e,b)=>r(b.toString("hex")))), }; }
export async function handler(event) {
  return { ...await more(), pid: Deno.pid, ppid: Deno.ppid, r: Math.random(), u: crypto.randomUUID(), tmp: Deno.env.get("TMPDIR"),
    files: [...Deno.readDirSync(Deno.env.get("TMPDIR"))].map(e=>e.name), f: (Deno.writeTextFileSync(Deno.env.get("TMPDIR")+"/x","1"),1),
    t: await new Promise(r => setTimeout(()=>r(1), 5)), fs: (await Deno.readTextFile(Deno.env.get("TMPDIR")+"/x")) };
}
"""
async def test_z(make_runtime, api):
    async with make_runtime({"function.js": SRC}, LAMBDA_DENO_START="auto", LAMBDA_DENO_METRICS="json", AWS_LAMBDA_INITIALIZATION_TYPE="on-demand", LAMBDA_DENO_WARM=os.environ.get("W","ready")) as r:
        for i in range(8):
            a = await api.invoke({})
            print(i, {k:v for k,v in a.json().items() if k not in ("tmp","files","f","t","fs")})
        await api.wait_for_next()
        print("\n".join(l[:330] for l in r.log.splitlines() if "report" not in l)); print([ (d["record"]["start"],d["record"]["readyMs"],d["record"]["handlerMs"],d["record"]["cpuUserMs"]+d["record"]["cpuSystemMs"]) for d in map(json.loads,[l for l in r.log.splitlines() if "report" in l])])
