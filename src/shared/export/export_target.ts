/** Where an export is put: a bucket, or a folder of whoever makes it by hand. */
import type { DownloadBucket } from "../download/bucket.ts";
import type { Connection } from "../postgres/connection.ts";
import { ownBuckets } from "../schema/own_objects.ts";
import type { ExportFile } from "./export_queries.ts";

export interface ExportTarget {
  /** Errors: those of the place. */
  prepare(): Promise<void>;
  /** Part `number`, from 0 on, of the document. The same bytes may come twice. */
  putDocument(number: number, bytes: Uint8Array): Promise<void>;
  /** Part `number`, from 0 on, of a file, which begins at `at`. The same bytes may come twice. */
  putFile(file: Pick<ExportFile, "number" | "path">, number: number, at: number, bytes: Uint8Array): Promise<void>;
  /** What of the parts is not there as it was put. */
  missing(): Promise<Missing>;
}

export interface Missing {
  readonly document: boolean;
  /** Numbers of files. */
  readonly files: readonly number[];
}

/** Everything of ours in the bucket lies below it: an app may have used a bucket of that name before. */
export const exportPrefix = "holdfast";

const padded = (number: number) => String(number).padStart(6, "0");
export const documentObject = (id: string, part: number): string => `${exportPrefix}/${id}/d${padded(part + 1)}`;
export const fileObject = (id: string, file: number, part: number): string =>
  `${exportPrefix}/${id}/f${padded(file)}-${padded(part + 1)}`;

/** In the bucket of exports of this project. `connection`: of its database, which knows what lies there. */
export function bucketTarget(
  id: string,
  bucket: Pick<DownloadBucket, "prepare" | "put">,
  connection: Connection,
): ExportTarget {
  return {
    prepare: () => bucket.prepare(),
    putDocument: (number, bytes) => bucket.put(documentObject(id, number), bytes),
    putFile: ({ number: file }, number, _, bytes) => bucket.put(fileObject(id, file, number), bytes),
    async missing() {
      const rows = await connection.query(
        `with put (file, object, bytes) as (
           select 0, pg_catalog.format('%s/%s/d%s', $2::text, e.id, pg_catalog.lpad(p.place::text, 6, '0')), (p.part ->> 'bytes')::bigint
           from backup.exports as e, pg_catalog.jsonb_array_elements(e.parts) with ordinality as p (part, place)
           where e.id = $1::uuid
           union all
           select f.number,
             pg_catalog.format('%s/%s/f%s-%s', $2::text, f.export_id, pg_catalog.lpad(f.number::text, 6, '0'), pg_catalog.lpad(p.place::text, 6, '0')),
             (p.part ->> 'bytes')::bigint
           from backup.export_files as f, pg_catalog.jsonb_array_elements(f.parts) with ordinality as p (part, place)
           where f.export_id = $1::uuid and f.state = 'copied'
         )
         select distinct put.file from put
         where not exists (
           select from storage.objects as o
           where o.bucket_id = $3::text and o.name = put.object and (o.metadata ->> 'size')::bigint = put.bytes
         )`,
        [id, exportPrefix, ownBuckets.exports],
      );
      const numbers = rows.map((row) => Number(row["file"]));
      return { document: numbers.includes(0), files: numbers.filter((number) => number > 0) };
    },
  };
}
