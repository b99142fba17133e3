output "url" {
  value = aws_lambda_function_url.hono_api.function_url
}

output "queue_url" {
  value = aws_sqs_queue.payments.url
}

output "failed_queue_url" {
  value = aws_sqs_queue.payments_failed.url
}
