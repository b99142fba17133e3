locals {
  zips = {
    for kind in var.kinds : kind => "${var.folder}/${kind}-layer-${var.architecture}.zip"
  }
}

resource "aws_s3_object" "zip" {
  for_each = var.bucket == null ? {} : local.zips

  bucket = var.bucket
  # The digest in the key gives each content an object of its own.
  key    = "${var.name_prefix}/${each.key}-${filesha256(each.value)}.zip"
  source = each.value
}

resource "aws_lambda_layer_version" "layer" {
  for_each = local.zips

  layer_name               = "${var.name_prefix}-${each.key}-${var.architecture}"
  filename                 = var.bucket == null ? each.value : null
  s3_bucket                = var.bucket
  s3_key                   = var.bucket == null ? null : aws_s3_object.zip[each.key].key
  source_code_hash         = filebase64sha256(each.value)
  compatible_architectures = [var.architecture]
  skip_destroy             = var.skip_destroy
}
