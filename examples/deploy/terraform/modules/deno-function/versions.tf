terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # Since 6.28 a public function URL gets both permissions that it needs.
      version = ">= 6.28, < 7.0"
    }
  }
}
