/** What the tasks of files of a run have left, for its manifest. */
import { z } from "zod";
import { type Manifest, manifestSchema } from "../format/manifest.ts";
import type { Task } from "../jobs/queries.ts";
import { text } from "../jobs/run_row.ts";
import type { Connection } from "../postgres/connection.ts";

const doneList = z.object({
  list: manifestSchema.shape.files.unwrap().unwrap().shape.lists.element,
  unreadable: z.int(),
});

export type DoneList = z.infer<typeof doneList>;

/** Code of the warning that Storage did not give files that it lists. `backup.note_unreadable_files` looks for it. */
const unreadableCode = "files_unreadable";

/** Of the attempt of `task`, in the order of the ids of their files. */
export async function readDoneLists(connection: Connection, task: Task): Promise<DoneList[]> {
  const rows = await connection.query(
    `select t.result from backup.tasks as t
      where t.run_id = $1::uuid and t.attempt = $2::int and t.kind = 'files' and t.status = 'done'
      order by t.detail ->> 'prefix'`,
    [task.run, String(task.attempt)],
  );
  return rows.map((row) => doneList.parse(JSON.parse(text(row, "result"))));
}

export function warningsOfLists(lists: readonly DoneList[]): Manifest["warnings"] {
  const unreadable = lists.reduce((sum, each) => sum + each.unreadable, 0);
  return unreadable === 0 ? [] : [{
    code: unreadableCode,
    message: `Storage does not give ${unreadable} of the files that it lists: their content is not in the backup`,
  }];
}
