variable "name" {
  description = "Prefix of all names except those of the layers"
  type        = string
  default     = "deno-spawn-examples"
}

variable "architecture" {
  description = "Architecture of the functions and their layers"
  type        = string
  default     = "x86_64"

  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "architecture must be x86_64 or arm64."
  }
}

variable "url_auth" {
  description = "Who may call the function URL: NONE makes it public"
  type        = string
  default     = "AWS_IAM"

  validation {
    condition     = contains(["AWS_IAM", "NONE"], var.url_auth)
    error_message = "url_auth must be AWS_IAM or NONE."
  }
}
