locals {
  # What Lambda does as the function's role because of a setting.
  network = var.vpc == null ? [] : [
    # EC2 offers nothing narrower. Lambda does this before the code runs.
    jsonencode({ Effect = "Allow", Action = local.network_actions, Resource = "*" }),
    # The code itself may not do it.
    jsonencode({
      Effect    = "Deny"
      Action    = local.network_actions
      Resource  = "*"
      Condition = { ArnEquals = { "lambda:SourceFunctionArn" = local.function_arn } }
    }),
  ]
  tracing = var.tracing != "Active" ? [] : [jsonencode({
    Effect   = "Allow"
    Action   = ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]
    Resource = "*" # X-Ray knows no resources here
  })]
  dead_letter = [for target in var.dead_letter[*] : jsonencode({
    Effect   = "Allow"
    Action   = [split(":", target.arn)[2] == "sqs" ? "sqs:SendMessage" : "sns:Publish"]
    Resource = target.arn
  })]
  # Each as JSON, since a list cannot hold objects of different types.
  settings = concat(local.network, local.tracing, local.dead_letter)

  network_actions = [
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
  ]
  # From the log group's ARN: the function's own would make the policy wait for the
  # function, which can be created only once its role has the policy.
  arn = split(":", aws_cloudwatch_log_group.function.arn)
  function_arn = join(":", concat(
    slice(local.arn, 0, 2), ["lambda"], slice(local.arn, 3, 5), ["function", var.name]
  ))
}

# The function has a role of its own. AWSLambdaBasicExecutionRole, which many examples
# attach, may create and write every log group in the account.
resource "aws_iam_role" "function" {
  name_prefix          = "${substr(var.name, 0, 37)}-"
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "lambda.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "logs" {
  name = "logs"
  role = aws_iam_role.function.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect = "Allow"
      Action = ["logs:CreateLogStream", "logs:PutLogEvents"]
      # ":*" matches the streams of this log group. Their names contain the date, the
      # version and a random part, so they cannot be listed.
      Resource = "${aws_cloudwatch_log_group.function.arn}:*"
    }]
  })
}

resource "aws_iam_role_policy" "settings" {
  count = length(local.settings) == 0 ? 0 : 1

  name = "settings"
  role = aws_iam_role.function.id
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [for statement in local.settings : jsondecode(statement)]
  })
}

resource "aws_iam_role_policy" "own" {
  for_each = var.policies

  name   = each.key
  role   = aws_iam_role.function.id
  policy = each.value
}
