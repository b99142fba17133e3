"""AWS accounts: plans, deployments, layers, invocations, logs."""
