/**
 * Names of what sets channels up. All are secrets, or hold one, but for the authority and the last. The mail client is far from here:
 * only the function `notify` carries it.
 */
export const channelVariables = {
  smtpUrl: "BACKUP_SMTP_URL",
  smtpAuthority: "BACKUP_SMTP_CA",
  mailApiUrl: "BACKUP_MAIL_API_URL",
  mailApiKey: "BACKUP_MAIL_API_KEY",
  slackUrl: "BACKUP_SLACK_URL",
  webhookUrl: "BACKUP_WEBHOOK_URL",
  webhookSecret: "BACKUP_WEBHOOK_SECRET",
  heartbeatUrl: "BACKUP_HEARTBEAT_URL",
  privateChannels: "BACKUP_PRIVATE_CHANNELS",
} as const;
