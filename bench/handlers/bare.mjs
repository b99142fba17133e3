/** The least a program can do to run the handler once; the yardstick for CPU time. */
import { handler } from "./echo.mjs";

console.log(JSON.stringify(await handler({ n: 0 })));
