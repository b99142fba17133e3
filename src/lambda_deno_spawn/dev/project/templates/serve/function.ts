import { respond } from "./app.ts";

Deno.serve(respond);
