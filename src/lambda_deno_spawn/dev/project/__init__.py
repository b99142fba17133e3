"""The user's project: lambda.toml, handlers, quotas, templates."""
