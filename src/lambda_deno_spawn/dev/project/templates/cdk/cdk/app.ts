import { App, CfnOutput, Duration, Stack } from "aws-cdk-lib";
import { FunctionUrlAuthType } from "aws-cdk-lib/aws-lambda";
import { fileURLToPath } from "node:url";
import { DenoFunction } from "./deno-function.ts";

const NAME = "my-function";

const app = new App();
// Names of stacks have no underscore, and begin with a letter.
const stack = new Stack(app, `lambda-${NAME.replaceAll("_", "-")}`);

const greeter = new DenoFunction(stack, "Function", {
  functionName: NAME,
  entry: fileURLToPath(new URL("..", import.meta.url)),
  memorySize: 512,
  timeout: Duration.seconds(10),
  layersFolder: app.node.tryGetContext("layers"),
});

// Who calls it needs lambda:InvokeFunctionUrl and lambda:InvokeFunction.
const url = greeter.addFunctionUrl({ authType: FunctionUrlAuthType.AWS_IAM });
new CfnOutput(stack, "Url", { value: url.url });
