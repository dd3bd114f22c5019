/** Signed calls to one bucket of a server that speaks the S3 protocol: path-style addresses, signature version 4. */
import { AwsV4Signer } from "aws4fetch";
import type { Clock } from "../clock.ts";
import { sha256Hex } from "../crypto/digest.ts";
import { utcStamp } from "../format/layout.ts";
import { callHttp, type Fetch, type HttpAnswer, type HttpCall } from "./http_call.ts";
import type { LockSettings } from "./lock.ts";

export interface S3Settings {
  /** `https://host[:port]` (or http), without bucket. Default: AWS in the region. */
  readonly endpoint?: string;
  /** Default `us-east-1`, which servers other than AWS take. */
  readonly region?: string;
  readonly bucket: string;
  /** A folder in the bucket, without slash at either end; empty for none. */
  readonly prefix: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
  /** Where the bucket has object lock. Default: `defaultLock`. */
  readonly lock?: LockSettings;
}

export interface S3Deps {
  readonly fetch: Fetch;
  readonly clock: Clock;
  /** For one exchange. Default 120,000. */
  readonly timeoutMs?: number;
  /** As what a name is served to browsers, which ask for it anew each time. Default: bytes that nobody shows. */
  readonly contentTypeOf?: (name: string) => string;
}

export interface S3Call {
  readonly body?: Uint8Array | null;
  readonly headers?: Record<string, string>;
  readonly maxBytes?: number;
}

export interface S3Place {
  readonly label: string;
  readonly bucketUrl: string;
  /** Any answer, whatever its status. Errors: those of `callHttp`. */
  send(method: HttpCall["method"], url: string, call?: S3Call): Promise<HttpAnswer>;
}

export const defaultS3Region = "us-east-1";

const maxAnswerBytes = 1024 * 1024;

/** Where calls go, without a slash at the end. */
export function s3EndpointOf({ endpoint, region }: { endpoint?: string | null; region?: string | null }): string {
  return (endpoint ?? `https://s3.${region ?? defaultS3Region}.amazonaws.com`).replace(/\/+$/, "");
}

export function s3Place(settings: S3Settings, deps: S3Deps): S3Place {
  const region = settings.region ?? defaultS3Region;
  const endpoint = s3EndpointOf(settings);
  const folder = settings.prefix === "" ? "" : `/${settings.prefix}`;
  const label = `s3://${settings.bucket}${folder} at ${new URL(endpoint).host}`;
  return {
    label,
    bucketUrl: `${endpoint}/${settings.bucket}`,
    send: async (method, url, { body = null, headers = {}, maxBytes = maxAnswerBytes } = {}) => {
      const signer = new AwsV4Signer({
        method,
        url,
        headers: { ...headers, "x-amz-content-sha256": await sha256Hex(body ?? new Uint8Array(0)) },
        ...(body === null ? {} : { body }),
        accessKeyId: settings.accessKeyId,
        secretAccessKey: settings.secretAccessKey,
        ...(settings.sessionToken === undefined ? {} : { sessionToken: settings.sessionToken }),
        service: "s3",
        region,
        datetime: utcStamp(deps.clock.now()),
      });
      const signed = await signer.sign();
      signed.headers.set("accept-encoding", "identity");
      const call = { method, url: signed.url.toString(), headers: signed.headers, body };
      return await callHttp(deps.fetch, call, { label, timeoutMs: deps.timeoutMs ?? 120_000, maxBytes });
    },
  };
}
