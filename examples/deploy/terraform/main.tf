module "layers" {
  source = "./modules/deno-layers"
  folder = "../dist"
}

# Your function here: its name, and the package that `lambda-deno-spawn build` wrote.
module "orders" {
  source  = "./modules/deno-function"
  name    = "orders"
  package = "../dist/orders.zip"
  layers  = module.layers.arns
  url     = {}
}

output "url" {
  value = module.orders.url
}
