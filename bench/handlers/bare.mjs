/** The minimal program that runs the handler once; the baseline for CPU time. */
import { handler } from "./echo.mjs";

console.log(JSON.stringify(await handler({ n: 0 })));
