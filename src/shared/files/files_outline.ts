/** Of a full backup, or of the one that a moment stands on; `missed` have no content in it. */
export interface FilesOutline {
  readonly backup: string;
  readonly consistentAt: string;
  /** Name of the database whose Storage they go into. */
  readonly database: string;
  readonly files: number;
  readonly missed: number;
  readonly bytes: number;
}
