# `terraform test` runs this without an account: everything in AWS is made up.
mock_provider "aws" {}

run "layers_that_were_not_built_are_an_error" {
  command = plan

  variables {
    folder = "nowhere"
  }

  expect_failures = [var.folder]
}

run "kinds_are_those_that_exist" {
  command = plan

  variables {
    kinds  = ["node"]
    folder = "nowhere"
  }

  expect_failures = [var.kinds]
}
