import { RemovalPolicy, Stack } from "aws-cdk-lib";
import {
  PolicyDocument,
  PolicyStatement,
  Role,
  ServicePrincipal,
} from "aws-cdk-lib/aws-iam";
import {
  Architecture,
  Code,
  Function,
  type FunctionOptions,
  LayerVersion,
  LoggingFormat,
  Runtime,
} from "aws-cdk-lib/aws-lambda";
import { LogGroup, RetentionDays } from "aws-cdk-lib/aws-logs";
import type { Construct } from "constructs";
import { execFileSync } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const COMMAND = "lambda-deno-spawn";
const KINDS = ["deno", "runtime"];

export interface DenoFunctionProps
  extends Omit<FunctionOptions, "role" | "logGroup"> {
  /** The function: a folder, or the file with the handler. */
  readonly entry: string;
  /** Handler as FILE.EXPORT; default: found by the file's name. */
  readonly handler?: string;
  /** How long the log is kept; default: 14 days. */
  readonly logRetention?: RetentionDays;
  /** Folder with layers that were built before; default: they are built here. */
  readonly layersFolder?: string;
  /** What the function may do beside writing its log. */
  readonly policies?: { [name: string]: PolicyDocument };
}

/** What `lambda-deno-spawn build -o json` prints. */
interface Package {
  path: string;
  handler: string;
}

/**
 * A function that runs on Deno with a new process for each event.
 *
 * `lambda-deno-spawn` has to be on PATH: it builds the package and, once for each stack
 * and architecture, the layers. Both are reproducible, so nothing is uploaded again
 * unless it changed.
 */
export class DenoFunction extends Function {
  constructor(scope: Construct, id: string, props: DenoFunctionProps) {
    const { entry, policies, logRetention, layersFolder, ...options } = props;
    const architecture = props.architecture ?? Architecture.X86_64;
    const built = build(entry, architecture, props.handler);
    const logGroup = new LogGroup(scope, `${id}Logs`, {
      retention: logRetention ?? RetentionDays.TWO_WEEKS,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    // Without a role CDK attaches AWSLambdaBasicExecutionRole, which may create and
    // write every log group in the account.
    const role = new Role(scope, `${id}Role`, {
      assumedBy: new ServicePrincipal("lambda.amazonaws.com"),
      inlinePolicies: {
        logs: new PolicyDocument({
          statements: [
            new PolicyStatement({
              actions: ["logs:CreateLogStream", "logs:PutLogEvents"],
              resources: [logGroup.logGroupArn],
            }),
          ],
        }),
        ...policies,
      },
    });
    super(scope, id, {
      loggingFormat: LoggingFormat.JSON,
      ...options,
      architecture,
      role,
      logGroup,
      // Managed Python provides the interpreter; the wrapper starts the supervisor in
      // place of AWS's Python runtime.
      runtime: Runtime.PYTHON_3_13,
      handler: built.handler,
      code: Code.fromAsset(built.path),
      layers: [
        ...layers(scope, architecture, layersFolder),
        ...(props.layers ?? []),
      ],
      environment: {
        ...props.environment,
        AWS_LAMBDA_EXEC_WRAPPER: "/opt/lambda-deno-spawn",
      },
    });
  }
}

function build(
  entry: string,
  architecture: Architecture,
  handler?: string,
): Package {
  const out = mkdtempSync(join(tmpdir(), "deno-function-"));
  const options = ["--arch", architecture.name, "--out", out, "-o", "json"];
  if (handler !== undefined) options.push("--handler", handler);
  return JSON.parse(run("build", entry, ...options));
}

/** The two layers, once for each stack and architecture. */
function layers(
  scope: Construct,
  architecture: Architecture,
  folder?: string,
): LayerVersion[] {
  const stack = Stack.of(scope);
  const name = architecture.name;
  const id = (kind: string) => `DenoSpawn-${kind}-${name}`;
  const found = KINDS.map((kind) => stack.node.tryFindChild(id(kind)));
  if (found.every((layer) => layer instanceof LayerVersion)) return found;
  const out = folder ?? mkdtempSync(join(tmpdir(), "deno-layers-"));
  if (folder === undefined) {
    run("layer", "build", "--arch", name, "--python", "3.13", "--out", out);
  }
  return KINDS.map((kind) =>
    new LayerVersion(stack, id(kind), {
      code: Code.fromAsset(join(out, `${kind}-layer-${name}.zip`)),
      compatibleArchitectures: [architecture],
    })
  );
}

function run(...args: string[]): string {
  // What the command says goes to stderr, where `cdk` shows it.
  return execFileSync(COMMAND, args, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
}
