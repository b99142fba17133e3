output "arns" {
  description = "ARNs of the layer versions, in the order of `kinds`"
  value       = [for kind in var.kinds : aws_lambda_layer_version.layer[kind].arn]
}
