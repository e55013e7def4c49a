# Without an account: what the module asks for.

mock_provider "aws" {}

variables {
  code = { CodeBucket = "code", FunctionKey = "function/1.zip", BootKey = "boot/1", WorkerKey = "worker/1" }
}

run "passes_parameters_on" {
  command = plan
  variables {
    parameters = { Layout = "gpu-and-app" }
  }
  assert {
    condition     = aws_cloudformation_stack.this.parameters["Layout"] == "gpu-and-app"
    error_message = "a parameter is lost"
  }
  assert {
    condition     = aws_cloudformation_stack.this.parameters["BootKey"] == "boot/1"
    error_message = "the code is lost"
  }
  assert {
    condition     = aws_cloudformation_stack.this.tags["gpuctl:stack"] == "gpuctl"
    error_message = "gpuctl destroy finds what is left by this tag"
  }
}

run "refuses_a_name_that_no_bucket_can_have" {
  command = plan
  variables {
    name = "My Stack"
  }
  expect_failures = [var.name]
}
