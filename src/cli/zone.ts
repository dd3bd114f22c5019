/** What is added to a wall clock of this machine's zone, which shows the same digits as `utc`, to make it UTC. */
export function zoneMinutes(utc: Date): number {
  return new Date(
    utc.getUTCFullYear(),
    utc.getUTCMonth(),
    utc.getUTCDate(),
    utc.getUTCHours(),
    utc.getUTCMinutes(),
  ).getTimezoneOffset();
}
