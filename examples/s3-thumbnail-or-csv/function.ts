import {
  GetObjectCommand,
  PutObjectCommand,
  S3Client,
} from "@aws-sdk/client-s3";
import { summarise } from "./summary.ts";

interface S3Event {
  Records: { s3: { bucket: { name: string }; object: { key: string } } }[];
}

const s3 = new S3Client({
  // A stand-in for S3 does not have a host name for each bucket.
  forcePathStyle: Deno.env.has("AWS_ENDPOINT_URL_S3"),
});

export async function handler(event: S3Event) {
  const written = [];
  for (const { s3: { bucket, object } } of event.Records) {
    // Keys in events are encoded like form fields.
    const key = decodeURIComponent(object.key.replaceAll("+", " "));
    // Without a filter, the objects written here cause events too.
    if (!key.endsWith(".csv")) continue;
    written.push(await summariseObject(bucket.name, key));
  }
  return { written };
}

async function summariseObject(bucket: string, key: string) {
  const { Body } = await s3.send(
    new GetObjectCommand({ Bucket: bucket, Key: key }),
  );
  const summary = summarise(await Body?.transformToString() ?? "");
  const target = key.replace(/\.csv$/, ".summary.json");
  await s3.send(
    new PutObjectCommand({
      Bucket: bucket,
      Key: target,
      Body: JSON.stringify(summary),
      ContentType: "application/json",
    }),
  );
  console.log(`Summarised ${summary.rows} rows of ${bucket}/${key}`);
  return { bucket, key: target };
}
