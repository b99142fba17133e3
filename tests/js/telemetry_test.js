// @ts-check
/** What Deno's telemetry gets: the trace of an event, and the console's records. */

import assert from "node:assert/strict";
import { headOf, sayHello } from "./doubles.js";
import {
  capture,
  traceOf,
  xraySpan,
} from "../../src/lambda_deno_spawn/js/src/telemetry.js";

const API = Symbol.for("opentelemetry.js.api.1");
const SPAN = Symbol.for("OpenTelemetry Context Key SPAN");
const TRACE = "5759e988bd862e3fe1be46a994272793";
const PARENT = "53995c3f42cd8ad8";
const XRAY =
  `Root=1-5759e988-bd862e3fe1be46a994272793;Parent=${PARENT};Sampled=1`;
const W3C = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/** A context of OpenTelemetry's API. */
class Context {
  /** @param {Map<symbol, any>} [values] */
  constructor(values = new Map()) {
    this.values = values;
  }
  /** @param {symbol} key */
  getValue(key) {
    return this.values.get(key);
  }
  /** @param {symbol} key @param {any} value */
  setValue(key, value) {
    return new Context(new Map([...this.values, [key, value]]));
  }
}

/** A registry of that API, whose propagator knows `traceparent`. */
class Registry {
  current = new Context();
  context = {
    active: () => this.current,
    with: (
      /** @type {Context} */ context,
      /** @type {() => unknown} */ work,
    ) => {
      const before = this.current;
      this.current = context;
      try {
        return work();
      } finally {
        this.current = before;
      }
    },
  };
  propagation = {
    extract(
      /** @type {Context} */ context,
      /** @type {any} */ carrier,
      /** @type {any} */ getter,
    ) {
      assert.ok(
        getter.keys(carrier).every((/** @type {string} */ name) =>
          getter.get(carrier, name.toUpperCase()) !== undefined
        ),
      );
      const header = getter.get(carrier, "traceparent");
      if (header === undefined) return context;
      const [, traceId, spanId] = header.split("-");
      return context.setValue(SPAN, {
        spanContext: () => ({ traceId, spanId, traceFlags: 1 }),
      });
    },
  };
}

/**
 * @param {any} api
 * @param {string | null} traceId
 * @param {unknown} event
 * @returns {any} The span context that a handler has; undefined: none.
 */
function spanWithin(api, traceId, event) {
  /** @type {any} */ (globalThis)[API] = api;
  try {
    const span = () => api?.context?.active().getValue(SPAN)?.spanContext();
    return (traceOf(headOf({ traceId }), event) ?? ((work) => work()))(span);
  } finally {
    delete /** @type {any} */ (globalThis)[API];
  }
}

Deno.test("the trace of X-Ray is the parent", () => {
  const span = spanWithin(new Registry(), XRAY, { n: 1 });
  assert.deepEqual(span, {
    traceId: TRACE,
    spanId: PARENT,
    traceFlags: 1,
    isRemote: true,
  });
});

for (
  const [what, event] of /** @type {[string, unknown][]} */ ([
    ["headers", { headers: { TraceParent: W3C, other: 1 } }],
    ["headers of several values", {
      multiValueHeaders: { traceparent: [W3C] },
    }],
  ])
) {
  Deno.test(`the trace of a request is the parent before X-Ray's: ${what}`, () => {
    const span = spanWithin(new Registry(), XRAY, event);
    assert.equal(span.traceId, "0af7651916cd43dd8448eb211c80319c");
    assert.equal(span.spanId, "b7ad6b7169203331");
  });
}

for (
  const [what, header, event]
    of /** @type {[string, string | null, any][]} */ ([
      ["no header", null, {}],
      ["no sampling", XRAY.replace("Sampled=1", "Sampled=0"), {}],
      ["an event that is not an object", null, "text"],
      ["an event that is null", null, null],
      ["headers that are none", null, { headers: 7 }],
      ["headers of null", null, { headers: null }],
    ])
) {
  Deno.test(`without a parent a handler has none: ${what}`, () => {
    assert.equal(spanWithin(new Registry(), header, event), undefined);
  });
}

Deno.test("without telemetry, or with one that throws, there is no trace", () => {
  const throwing = {
    context: {
      active() {
        throw new Error("no context");
      },
    },
  };
  for (const api of [undefined, {}, { trace: {} }, throwing]) {
    /** @type {any} */ (globalThis)[API] = api;
    try {
      assert.equal(traceOf(headOf({ traceId: XRAY }), {}), null);
    } finally {
      delete /** @type {any} */ (globalThis)[API];
    }
  }
});

Deno.test("without a propagator X-Ray's trace is the parent", () => {
  const { context } = new Registry();
  assert.equal(spanWithin({ context }, XRAY, {}).traceId, TRACE);
});

for (
  const header of [
    "",
    "Root",
    "Root=1-5759e988-bd862e3fe1be46a994272793",
    XRAY.replace("1-5759e988", "2-5759e988"),
    XRAY.replace(PARENT, "short"),
    XRAY.replace("bd862e3f", "zzzzzzzz"),
    `${XRAY.replace("Sampled=1", "Sampled=?")}`,
    "=;;==;",
  ]
) {
  Deno.test(`this is not a parent: ${JSON.stringify(header)}`, () => {
    assert.equal(xraySpan(header), null);
  });
}

Deno.test("fields of X-Ray's header may come in any order and case, and with others", () => {
  const header = ` sampled=1; parent=${PARENT.toUpperCase()};Lineage=a:0;` +
    " root=1-5759E988-bd862e3fe1be46a994272793";
  assert.deepEqual(xraySpan(header), xraySpan(XRAY));
});

Deno.test("the console's methods stay as they are unless telemetry wants the records", () => {
  const log = () => {};
  const console = { log };
  sayHello({ console: "log" });
  capture(console);
  assert.equal(console.log, log);
  sayHello({ console: "telemetry" });
  capture(console);
  assert.notEqual(console.log, log);
});
