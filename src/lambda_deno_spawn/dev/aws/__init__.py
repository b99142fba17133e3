"""AWS accounts: plans, deploys, layers, invocations, logs."""
