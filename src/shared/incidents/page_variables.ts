/** Names of the environment of the status page. Without credentials of its own, a bucket of S3 is reached with those of the second store. */
export const pageVariables = {
  address: "BACKUP_STATUS_PAGE",
  s3AccessKeyId: "BACKUP_STATUS_PAGE_S3_ACCESS_KEY_ID",
  s3SecretAccessKey: "BACKUP_STATUS_PAGE_S3_SECRET_ACCESS_KEY",
  s3SessionToken: "BACKUP_STATUS_PAGE_S3_SESSION_TOKEN",
} as const;
