# The stack of ../stack.yaml by Terraform. Everything is in the template: this module passes parameters in and outputs out.

terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 3.39"
    }
  }
}

variable "name" {
  description = "The stack's name, and that of its table, function and topic. A name that is changed makes another stack."
  type        = string
  default     = "gpuctl"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,39}$", var.name))
    error_message = "The name must be of at most 40 of a-z, 0-9 and -, and begin with a letter."
  }
}

variable "code" {
  description = "Where function, boot files and worker are: what `gpuctl deploy --export DIR` writes to DIR/parameters.json, uploaded."
  type = object({
    CodeBucket  = string
    FunctionKey = string
    BootKey     = string
    WorkerKey   = string
  })
}

variable "parameters" {
  description = "Other parameters of the template, by name, e.g. { Layout = \"gpu-and-app\", AlarmEmail = \"ada@example.com\" }."
  type        = map(string)
  default     = {}
}

variable "tags" {
  description = "Tags of the stack and of what it makes."
  type        = map(string)
  default     = {}
}

resource "aws_cloudformation_stack" "this" {
  name          = var.name
  template_body = file("${path.module}/../stack.yaml")
  parameters    = merge(var.parameters, var.code)
  capabilities  = ["CAPABILITY_IAM"]
  on_failure    = "DELETE"
  tags          = merge(var.tags, { "gpuctl:stack" = var.name })
}

output "stack" {
  description = "The outputs of the template, by name: QueueName, Table, Results, Policy, Subnets, …"
  value       = aws_cloudformation_stack.this.outputs
}
