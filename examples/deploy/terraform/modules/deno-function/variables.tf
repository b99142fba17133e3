variable "name" {
  description = "Name of the function"
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,64}$", var.name))
    error_message = "name must have 1 to 64 letters, digits, - and _."
  }
}

variable "package" {
  description = "The zip that `lambda-deno-spawn build` wrote"
  type        = string

  validation {
    condition     = fileexists(var.package)
    error_message = "There is no package ${var.package}: run `lambda-deno-spawn build` first."
  }
}

variable "layers" {
  description = "ARNs of layer versions: Deno and the runtime, and others; up to five"
  type        = list(string)

  validation {
    condition     = length(var.layers) >= 2 && length(var.layers) <= 5
    error_message = "layers must hold the deno and the runtime layer, and at most five in all."
  }
}

variable "handler" {
  description = "FILE.EXPORT, as `lambda-deno-spawn build` prints it"
  type        = string
  default     = "function.handler"
}

variable "runtime" {
  description = "Managed Python, which runs the supervisor, or provided.al2023 with a python layer"
  type        = string
  default     = "python3.13"

  validation {
    condition     = contains(["python3.12", "python3.13", "python3.14", "provided.al2023"], var.runtime)
    error_message = "runtime must be python3.12, python3.13, python3.14 or provided.al2023."
  }
}

variable "architecture" {
  description = "Architecture of the function, its layers and its package"
  type        = string
  default     = "x86_64"

  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "architecture must be x86_64 or arm64."
  }
}

variable "description" {
  description = "Description of the function"
  type        = string
  default     = null
}

variable "memory" {
  description = "Memory in MB"
  type        = number
  default     = 512
}

variable "timeout" {
  description = "Seconds that one event may take"
  type        = number
  default     = 10
}

variable "storage" {
  description = "Size of /tmp in MB"
  type        = number
  default     = 512
}

variable "environment" {
  description = "Variables of the function, settings of the runtime (LAMBDA_DENO_...) among them"
  type        = map(string)
  default     = {}
}

variable "kms_key_arn" {
  description = "Key that encrypts the variables; null: a key of AWS's own"
  type        = string
  default     = null
}

variable "bucket" {
  description = "Bucket to upload the package to; needed if it is larger than 50 MB"
  type        = string
  default     = null
}

variable "log" {
  description = "Format (JSON or Text), days that it is kept (0: for ever), levels (JSON only), key that encrypts it"
  type = object({
    format       = optional(string, "JSON")
    retention    = optional(number, 14)
    level        = optional(string)
    system_level = optional(string)
    kms_key_arn  = optional(string)
  })
  default = {}

  validation {
    condition     = contains(["JSON", "Text"], var.log.format)
    error_message = "log.format must be JSON or Text."
  }

  validation {
    condition     = var.log.format == "JSON" || (var.log.level == null && var.log.system_level == null)
    error_message = "log.level and log.system_level need the format JSON."
  }
}

variable "tracing" {
  description = "Active: Lambda samples events for X-Ray by itself; PassThrough: it follows the caller"
  type        = string
  default     = "PassThrough"

  validation {
    condition     = contains(["Active", "PassThrough"], var.tracing)
    error_message = "tracing must be Active or PassThrough."
  }
}

variable "vpc" {
  description = "Network of the function; null: none"
  type = object({
    subnet_ids         = list(string)
    security_group_ids = list(string)
    ipv6               = optional(bool, false)
  })
  default = null
}

variable "url" {
  description = "Function URL; {} makes one that accepts signed requests only; auth = NONE makes it public; null: none"
  type = object({
    auth        = optional(string, "AWS_IAM")
    invoke_mode = optional(string, "BUFFERED")
    cors = optional(object({
      origins     = list(string)
      methods     = optional(list(string))
      headers     = optional(list(string))
      expose      = optional(list(string))
      credentials = optional(bool)
      max_age     = optional(number)
    }))
  })
  default = null

  validation {
    condition     = contains(["AWS_IAM", "NONE"], try(var.url.auth, "AWS_IAM"))
    error_message = "url.auth must be AWS_IAM or NONE."
  }

  validation {
    condition     = contains(["BUFFERED", "RESPONSE_STREAM"], try(var.url.invoke_mode, "BUFFERED"))
    error_message = "url.invoke_mode must be BUFFERED or RESPONSE_STREAM."
  }
}

variable "alias" {
  description = "Alias that each change publishes a version for; URL and events go to it; null: none"
  type        = string
  default     = null
}

variable "reserved_concurrency" {
  description = "Executions at a time, reserved for this function; 0 stops it; null: no reservation"
  type        = number
  default     = null
}

variable "provisioned_concurrency" {
  description = "Environments that are kept ready for the alias; null: none"
  type        = number
  default     = null

  validation {
    condition     = var.provisioned_concurrency == null || var.alias != null
    error_message = "provisioned_concurrency belongs to an alias: set alias too."
  }
}

variable "snapstart" {
  description = "Start from a snapshot of an initialized environment; takes effect for the alias"
  type        = bool
  default     = false

  validation {
    condition     = !var.snapstart || (var.alias != null && var.runtime != "provided.al2023")
    error_message = "snapstart needs an alias and a python runtime."
  }
}

# An object, because Terraform knows while it plans whether there is one, even if the
# queue is made by the same configuration and its ARN is not known yet.
variable "dead_letter" {
  description = "Queue or topic for events of asynchronous invocations that failed for good; null: none"
  type        = object({ arn = string })
  default     = null
}

variable "events" {
  description = "Queues and streams that Lambda reads for the function: SQS, Kinesis, DynamoDB; the keys are names of your choice"
  type = map(object({
    arn             = string
    batch_size      = optional(number)
    batch_window    = optional(number)
    report_failures = optional(bool, true)
    max_concurrency = optional(number)
    start           = optional(string)
    filters         = optional(list(string), [])
    enabled         = optional(bool, true)
  }))
  default = {}

  validation {
    condition     = alltrue([for event in var.events : event.start == null || contains(["LATEST", "TRIM_HORIZON"], coalesce(event.start, "LATEST"))])
    error_message = "start of a stream must be LATEST or TRIM_HORIZON; queues have none."
  }
}

variable "schedules" {
  description = "Rules of EventBridge, by name: rate(...) or cron(...) in UTC, and the event as JSON"
  type = map(object({
    expression = string
    input      = optional(string)
    enabled    = optional(bool, true)
  }))
  default = {}
}

variable "policies" {
  description = "What the function may do besides: inline policies of its role, as JSON by name"
  type        = map(string)
  default     = {}
}

variable "permissions_boundary" {
  description = "ARN of the permissions boundary of the role; null: none"
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of the function, its role and its log group"
  type        = map(string)
  default     = {}
}
