locals {
  # What Lambda does as the function's role to read a source, by the service in its ARN.
  reading = {
    sqs     = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
    kinesis = ["kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:ListShards", "kinesis:DescribeStream", "kinesis:DescribeStreamSummary"]
    dynamodb = [
      "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:DescribeStream"
    ]
  }
}

resource "aws_lambda_event_source_mapping" "event" {
  for_each = var.events

  function_name                      = local.target_arn
  event_source_arn                   = each.value.arn
  batch_size                         = each.value.batch_size
  maximum_batching_window_in_seconds = each.value.batch_window
  starting_position                  = each.value.start
  enabled                            = each.value.enabled
  # The handler returns `batchItemFailures`, and only those are delivered again.
  function_response_types = each.value.report_failures ? ["ReportBatchItemFailures"] : []

  dynamic "scaling_config" {
    for_each = each.value.max_concurrency[*]

    content {
      maximum_concurrency = scaling_config.value
    }
  }

  dynamic "filter_criteria" {
    for_each = length(each.value.filters) == 0 ? [] : [each.value.filters]

    content {
      dynamic "filter" {
        for_each = filter_criteria.value

        content {
          pattern = filter.value
        }
      }
    }
  }

  # Lambda checks that the role may read the source.
  depends_on = [aws_iam_role_policy.event]
}

resource "aws_iam_role_policy" "event" {
  for_each = var.events

  name = "event-${each.key}"
  role = aws_iam_role.function.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Effect   = "Allow"
        Action   = local.reading[split(":", each.value.arn)[2]]
        Resource = each.value.arn
      }],
      # DynamoDB accepts no resource for this action.
      split(":", each.value.arn)[2] != "dynamodb" ? [] : [{
        Effect   = "Allow"
        Action   = ["dynamodb:ListStreams"]
        Resource = "*"
      }],
    )
  })
}

resource "aws_cloudwatch_event_rule" "schedule" {
  for_each = var.schedules

  name                = "${var.name}-${each.key}"
  schedule_expression = each.value.expression
  state               = each.value.enabled ? "ENABLED" : "DISABLED"
  tags                = var.tags
}

resource "aws_cloudwatch_event_target" "schedule" {
  for_each = var.schedules

  rule  = aws_cloudwatch_event_rule.schedule[each.key].name
  arn   = local.target_arn
  input = each.value.input
}

resource "aws_lambda_permission" "schedule" {
  for_each = var.schedules

  statement_id  = "schedule-${each.key}"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.function.function_name
  qualifier     = local.qualifier
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.schedule[each.key].arn
}
