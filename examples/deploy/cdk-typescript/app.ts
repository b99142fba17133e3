import { App, CfnOutput, Stack } from "aws-cdk-lib";
import { FunctionUrlAuthType } from "aws-cdk-lib/aws-lambda";
import { fileURLToPath } from "node:url";
import { DenoFunction } from "./deno-function.ts";

const app = new App();
const stack = new Stack(app, "DenoFunctions");

// Your function here: a folder, or the file with the handler.
const entry = app.node.tryGetContext("entry") ??
  fileURLToPath(new URL("../../hello", import.meta.url));
const hello = new DenoFunction(stack, "Hello", {
  entry,
  memorySize: 512,
  layersFolder: app.node.tryGetContext("layers"),
});

const url = hello.addFunctionUrl({ authType: FunctionUrlAuthType.AWS_IAM });
new CfnOutput(stack, "Url", { value: url.url });
