# `terraform test` runs this without an account: everything in AWS is made up.
mock_provider "aws" {
  mock_resource "aws_cloudwatch_log_group" {
    defaults = {
      arn = "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/lambda/orders"
    }
  }

  mock_resource "aws_lambda_function" {
    defaults = {
      arn     = "arn:aws:lambda:eu-central-1:123456789012:function:orders"
      version = "7"
    }
  }

  mock_resource "aws_lambda_alias" {
    defaults = {
      arn = "arn:aws:lambda:eu-central-1:123456789012:function:orders:live"
    }
  }
}

variables {
  name    = "orders"
  package = "main.tf" # any file
  layers = [
    "arn:aws:lambda:eu-central-1:123456789012:layer:lambda-deno-spawn-deno-x86_64:1",
    "arn:aws:lambda:eu-central-1:123456789012:layer:lambda-deno-spawn-runtime-x86_64:1",
  ]
}

run "alone_it_may_write_its_log_and_nothing_else" {
  assert {
    condition = jsondecode(aws_iam_role_policy.logs.policy).Statement == [{
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/lambda/orders:*"
    }]
    error_message = "The policy of the log allows something else."
  }

  assert {
    condition     = length(aws_iam_role_policy.settings) + length(aws_iam_role_policy.event) + length(aws_iam_role_policy.own) == 0
    error_message = "There are policies that no variable has asked for."
  }

  assert {
    condition     = jsondecode(aws_iam_role.function.assume_role_policy).Statement[0].Principal == { Service = "lambda.amazonaws.com" }
    error_message = "Others than Lambda may assume the role."
  }

  assert {
    condition     = aws_lambda_function.function.environment[0].variables == tomap({ AWS_LAMBDA_EXEC_WRAPPER = "/opt/lambda-deno-spawn" })
    error_message = "The function would not start Deno."
  }

  assert {
    condition     = output.url == null && output.arn == aws_lambda_function.function.arn
    error_message = "There is a URL, or the ARN is not the function's."
  }

  assert {
    condition     = aws_lambda_function.function.source_code_hash == filebase64sha256("main.tf")
    error_message = "A change of the package would not be noticed."
  }
}

run "url_and_events_go_to_the_alias" {
  variables {
    alias                   = "live"
    provisioned_concurrency = 2
    snapstart               = true
    url                     = { cors = { origins = ["https://example.com"] } }

    events = {
      queue = {
        arn             = "arn:aws:sqs:eu-central-1:123456789012:orders"
        max_concurrency = 5
        filters         = [jsonencode({ body = { kind = ["order"] } })]
      }
      table = {
        arn   = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/2026"
        start = "LATEST"
      }
    }

    schedules = {
      nightly = { expression = "cron(0 6 * * ? *)", input = jsonencode({ kind = "report" }) }
    }
  }

  assert {
    condition     = aws_lambda_function_url.url[0].qualifier == "live" && aws_lambda_permission.schedule["nightly"].qualifier == "live"
    error_message = "The URL or the schedule reaches another version than the alias."
  }

  assert {
    condition     = aws_lambda_event_source_mapping.event["queue"].function_name == aws_lambda_alias.alias[0].arn && aws_cloudwatch_event_target.schedule["nightly"].arn == aws_lambda_alias.alias[0].arn
    error_message = "Events reach another version than the alias."
  }

  assert {
    condition     = aws_lambda_alias.alias[0].function_version == "7" && aws_lambda_function.function.publish
    error_message = "The alias does not follow the published version."
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.event["queue"].policy).Statement == [{
      Effect   = "Allow"
      Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
      Resource = "arn:aws:sqs:eu-central-1:123456789012:orders"
    }]
    error_message = "The role may do more with the queue than reading it."
  }

  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.event["table"].policy).Statement : statement.Resource] == ["arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/2026", "*"]
    error_message = "The role cannot read the stream, or others too."
  }
}

run "settings_give_the_role_what_lambda_needs_for_them" {
  variables {
    tracing     = "Active"
    dead_letter = { arn = "arn:aws:sns:eu-central-1:123456789012:failed" }
    vpc         = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
    url         = { auth = "NONE" }
    policies    = { table = jsonencode({ Version = "2012-10-17", Statement = [] }) }
  }

  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.settings[0].policy).Statement : statement.Effect] == ["Allow", "Deny", "Allow", "Allow"]
    error_message = "A statement is missing, or too many."
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.settings[0].policy).Statement[1].Condition.ArnEquals["lambda:SourceFunctionArn"] == aws_lambda_function.function.arn
    error_message = "The function's code may change the network."
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.settings[0].policy).Statement[3].Action == ["sns:Publish"]
    error_message = "A topic gets another permission than to publish."
  }

  assert {
    condition     = aws_lambda_function_url.url[0].authorization_type == "NONE" && keys(aws_iam_role_policy.own) == ["table"]
    error_message = "The URL is not public, or a policy is missing."
  }
}

run "a_package_that_was_not_built_is_refused" {
  command = plan

  variables {
    package = "dist/orders.zip"
  }

  expect_failures = [var.package]
}

run "what_needs_an_alias_is_refused_without_one" {
  command = plan

  variables {
    provisioned_concurrency = 1
    snapstart               = true
  }

  expect_failures = [var.provisioned_concurrency, var.snapstart]
}

run "a_log_as_text_has_no_levels" {
  command = plan

  variables {
    log = { format = "Text", level = "INFO" }
  }

  expect_failures = [var.log]
}
