locals {
  qualifier  = one(aws_lambda_alias.alias[*].name)
  target_arn = one(concat(aws_lambda_alias.alias[*].arn, var.alias == null ? [aws_lambda_function.function.arn] : []))
}

resource "aws_s3_object" "package" {
  count = var.bucket == null ? 0 : 1

  bucket = var.bucket
  # The digest in the key gives each content an object of its own.
  key    = "lambda-deno-spawn/${var.name}-${filesha256(var.package)}.zip"
  source = var.package
}

resource "aws_lambda_function" "function" {
  function_name    = var.name
  description      = var.description
  role             = aws_iam_role.function.arn
  filename         = var.bucket == null ? var.package : null
  s3_bucket        = var.bucket
  s3_key           = one(aws_s3_object.package[*].key)
  source_code_hash = filebase64sha256(var.package)
  # A new version for the alias whenever code or settings change.
  publish = var.alias != null

  # Managed Python provides the interpreter; the wrapper starts the supervisor in place
  # of AWS's Python runtime.
  runtime       = var.runtime
  handler       = var.handler
  architectures = [var.architecture]
  layers        = var.layers
  memory_size   = var.memory
  timeout       = var.timeout
  kms_key_arn   = var.kms_key_arn
  tags          = var.tags

  # -1 is what the provider sends to have no reservation.
  reserved_concurrent_executions = var.reserved_concurrency == null ? -1 : var.reserved_concurrency

  environment {
    variables = merge(var.environment, {
      AWS_LAMBDA_EXEC_WRAPPER = "/opt/lambda-deno-spawn"
    })
  }

  ephemeral_storage {
    size = var.storage
  }

  logging_config {
    log_group             = aws_cloudwatch_log_group.function.name
    log_format            = var.log.format
    application_log_level = var.log.level
    system_log_level      = var.log.system_level
  }

  tracing_config {
    mode = var.tracing
  }

  dynamic "vpc_config" {
    for_each = var.vpc[*]

    content {
      subnet_ids                  = vpc_config.value.subnet_ids
      security_group_ids          = vpc_config.value.security_group_ids
      ipv6_allowed_for_dual_stack = vpc_config.value.ipv6
    }
  }

  dynamic "dead_letter_config" {
    for_each = var.dead_letter[*]

    content {
      target_arn = dead_letter_config.value.arn
    }
  }

  dynamic "snap_start" {
    for_each = var.snapstart ? [1] : []

    content {
      apply_on = "PublishedVersions"
    }
  }

  # Lambda checks that the role may use a network and a dead-letter queue.
  depends_on = [aws_iam_role_policy.logs, aws_iam_role_policy.settings]
}

resource "aws_lambda_alias" "alias" {
  count = var.alias == null ? 0 : 1

  name             = var.alias
  function_name    = aws_lambda_function.function.function_name
  function_version = aws_lambda_function.function.version
}

resource "aws_lambda_provisioned_concurrency_config" "alias" {
  count = var.provisioned_concurrency == null ? 0 : 1

  function_name                     = aws_lambda_function.function.function_name
  qualifier                         = local.qualifier
  provisioned_concurrent_executions = var.provisioned_concurrency
}

resource "aws_cloudwatch_log_group" "function" {
  name              = "/aws/lambda/${var.name}"
  retention_in_days = var.log.retention
  kms_key_id        = var.log.kms_key_arn
  tags              = var.tags
}

# For NONE, the provider adds the two permissions that make the URL public.
resource "aws_lambda_function_url" "url" {
  count = var.url == null ? 0 : 1

  function_name      = aws_lambda_function.function.function_name
  qualifier          = local.qualifier
  authorization_type = var.url.auth
  invoke_mode        = var.url.invoke_mode

  dynamic "cors" {
    for_each = var.url.cors[*]

    content {
      allow_origins     = cors.value.origins
      allow_methods     = cors.value.methods
      allow_headers     = cors.value.headers
      expose_headers    = cors.value.expose
      allow_credentials = cors.value.credentials
      max_age           = cors.value.max_age
    }
  }
}
