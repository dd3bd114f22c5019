/**
 * The S3 server as a process of its own, for programs that run on Deno: it says where it is as one line of JSON on stdout
 * and ends when stdin closes. Run by vite-node, since it needs Node's own HTTP server.
 */
import process from "node:process";
import { startS3Server } from "./s3_server.ts";

const { close, endpoint, region, bucket, accessKeyId, secretAccessKey } = await startS3Server();
process.stdout.write(`${JSON.stringify({ endpoint, region, bucket, accessKeyId, secretAccessKey })}\n`);
process.stdin.resume();
process.stdin.once("end", () => void close().then(() => process.exit(0)));
