/** Names of the environment. Those of the first store's credentials are never read: it is another provider's. */
export const secondaryVariables = {
  address: "BACKUP_SECONDARY",
  recipients: "BACKUP_RECIPIENTS",
  s3AccessKeyId: "BACKUP_SECONDARY_S3_ACCESS_KEY_ID",
  s3SecretAccessKey: "BACKUP_SECONDARY_S3_SECRET_ACCESS_KEY",
  s3SessionToken: "BACKUP_SECONDARY_S3_SESSION_TOKEN",
} as const;
