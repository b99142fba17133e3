output "arn" {
  description = "ARN of the function, or of its alias"
  value       = local.target_arn
  # A caller that takes the ARN from here may invoke the function at once.
  depends_on = [aws_iam_role_policy.logs]
}

output "function_name" {
  description = "Name of the function"
  value       = aws_lambda_function.function.function_name
}

output "version" {
  description = "Version that was published for the alias; $LATEST without one"
  value       = aws_lambda_function.function.version
}

output "url" {
  description = "Function URL, or null"
  value       = one(aws_lambda_function_url.url[*].function_url)
}

output "role_arn" {
  description = "ARN of the function's role"
  value       = aws_iam_role.function.arn
}

output "role_name" {
  description = "Name of the function's role, for further policies"
  value       = aws_iam_role.function.name
}

output "log_group_name" {
  description = "Name of the log group"
  value       = aws_cloudwatch_log_group.function.name
}
