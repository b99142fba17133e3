locals {
  dist      = "${path.module}/../../../dist"
  functions = toset(["hono-api", "sqs-batch"])
  timeout   = 10
}

resource "aws_lambda_layer_version" "deno" {
  layer_name               = "lambda-deno-spawn-deno-${var.architecture}"
  filename                 = "${local.dist}/deno-layer-${var.architecture}.zip"
  source_code_hash         = filebase64sha256("${local.dist}/deno-layer-${var.architecture}.zip")
  compatible_architectures = [var.architecture]
}

resource "aws_lambda_layer_version" "runtime" {
  layer_name               = "lambda-deno-spawn-runtime-${var.architecture}"
  filename                 = "${local.dist}/runtime-layer-${var.architecture}.zip"
  source_code_hash         = filebase64sha256("${local.dist}/runtime-layer-${var.architecture}.zip")
  compatible_architectures = [var.architecture]
}

resource "aws_lambda_function" "function" {
  for_each = local.functions

  function_name    = "${var.name}-${each.key}"
  filename         = "${local.dist}/${each.key}.zip"
  source_code_hash = filebase64sha256("${local.dist}/${each.key}.zip")
  role             = aws_iam_role.function[each.key].arn

  # Managed Python provides the interpreter; the wrapper starts the supervisor in place
  # of AWS's Python runtime.
  runtime       = "python3.13"
  handler       = "function.handler"
  architectures = [var.architecture]
  memory_size   = 512
  timeout       = local.timeout
  layers = [
    aws_lambda_layer_version.deno.arn,
    aws_lambda_layer_version.runtime.arn,
  ]

  environment {
    variables = {
      AWS_LAMBDA_EXEC_WRAPPER = "/opt/lambda-deno-spawn"
    }
  }

  logging_config {
    log_group  = aws_cloudwatch_log_group.function[each.key].name
    log_format = "JSON"
  }

  depends_on = [aws_iam_role_policy.logs]
}

resource "aws_cloudwatch_log_group" "function" {
  for_each = local.functions

  name              = "/aws/lambda/${var.name}-${each.key}"
  retention_in_days = 14
}

# Each function has its own role. AWSLambdaBasicExecutionRole, which many examples
# attach, may create and write every log group in the account.
resource "aws_iam_role" "function" {
  for_each = local.functions

  name               = "${var.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "logs" {
  for_each = local.functions

  statement {
    actions = ["logs:CreateLogStream", "logs:PutLogEvents"]
    # ":*" matches the streams of this log group. Their names contain the date, the
    # version and a random part, so they cannot be listed.
    resources = ["${aws_cloudwatch_log_group.function[each.key].arn}:*"]
  }
}

resource "aws_iam_role_policy" "logs" {
  for_each = local.functions

  name   = "logs"
  role   = aws_iam_role.function[each.key].id
  policy = data.aws_iam_policy_document.logs[each.key].json
}

# For NONE, the provider adds the two permissions that make the URL public.
resource "aws_lambda_function_url" "hono_api" {
  function_name      = aws_lambda_function.function["hono-api"].function_name
  authorization_type = var.url_auth
}

resource "aws_sqs_queue" "payments" {
  name = "${var.name}-payments"
  # Long enough that a batch which waits for a free function is not delivered again.
  visibility_timeout_seconds = 6 * local.timeout

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.payments_failed.arn
    # AWS advises five or more, because a throttled call counts as a delivery too.
    maxReceiveCount = 5
  })
}

resource "aws_sqs_queue" "payments_failed" {
  name                      = "${var.name}-payments-failed"
  message_retention_seconds = 1209600 # 14 days, the longest
}

data "aws_iam_policy_document" "queue" {
  statement {
    actions = [
      "sqs:ReceiveMessage",
      "sqs:DeleteMessage",
      "sqs:GetQueueAttributes",
    ]
    resources = [aws_sqs_queue.payments.arn]
  }
}

resource "aws_iam_role_policy" "queue" {
  name   = "queue"
  role   = aws_iam_role.function["sqs-batch"].id
  policy = data.aws_iam_policy_document.queue.json
}

resource "aws_lambda_event_source_mapping" "payments" {
  function_name           = aws_lambda_function.function["sqs-batch"].arn
  event_source_arn        = aws_sqs_queue.payments.arn
  batch_size              = 10
  function_response_types = ["ReportBatchItemFailures"]

  # Lambda checks that the role may read the queue.
  depends_on = [aws_iam_role_policy.queue]
}
