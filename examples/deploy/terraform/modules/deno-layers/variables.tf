variable "folder" {
  description = "Folder with the zips that `lambda-deno-spawn layer build` wrote"
  type        = string
  default     = "dist"

  validation {
    condition     = alltrue([for kind in var.kinds : fileexists("${var.folder}/${kind}-layer-${var.architecture}.zip")])
    error_message = "A layer is missing in ${var.folder}: run `lambda-deno-spawn layer build --arch ${var.architecture}` first."
  }
}

variable "architecture" {
  description = "Architecture of the functions that use the layers"
  type        = string
  default     = "x86_64"

  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "architecture must be x86_64 or arm64."
  }
}

variable "kinds" {
  description = "The layers; functions on provided.al2023 need `python` as well"
  type        = list(string)
  default     = ["deno", "runtime"]

  validation {
    condition     = length(setsubtract(var.kinds, ["deno", "runtime", "python"])) == 0
    error_message = "kinds may contain deno, runtime and python."
  }
}

variable "name_prefix" {
  description = "What the names of the layers begin with"
  type        = string
  default     = "lambda-deno-spawn"
}

variable "bucket" {
  description = "Bucket to upload the zips to; needed if one is larger than 50 MB"
  type        = string
  default     = null
}

variable "skip_destroy" {
  description = "Keep old versions, which functions outside of this configuration may use"
  type        = bool
  default     = false
}
