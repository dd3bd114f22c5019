import { join } from "node:path";
import { endProgram, root, startNodeProgram } from "../child.ts";

/** A real S3 server on loopback that checks signatures: the provider that is there when the project is not. */
export interface SecondProvider {
  /** Address as BACKUP_STORE takes it. */
  readonly store: string;
  readonly credentials: {
    readonly BACKUP_S3_ACCESS_KEY_ID: string;
    readonly BACKUP_S3_SECRET_ACCESS_KEY: string;
  };
  stop(): Promise<void>;
}

export async function startSecondProvider(): Promise<SecondProvider> {
  const { child, ready } = await startNodeProgram(join(root, "tests/support/s3_main.ts"));
  const { endpoint, region, bucket, accessKeyId, secretAccessKey } = ready as Record<string, string>;
  return {
    store: `s3://${bucket}/journal?endpoint=${encodeURIComponent(endpoint ?? "")}&region=${region}`,
    credentials: {
      BACKUP_S3_ACCESS_KEY_ID: accessKeyId ?? "",
      BACKUP_S3_SECRET_ACCESS_KEY: secretAccessKey ?? "",
    },
    stop: () => endProgram(child),
  };
}
