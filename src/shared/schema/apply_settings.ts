/** Session settings under which captured definitions keep their meaning; the same ones under which they are read. */

/** Names are then always schema-qualified, and constants (dates, intervals, floats) do not depend on a role's settings. */
export const captureSettings: readonly string[] = [
  "set search_path = ''",
  "set quote_all_identifiers = off",
  "set datestyle = 'ISO, YMD'",
  "set intervalstyle = 'postgres'",
  "set timezone = 'UTC'",
  "set extra_float_digits = 3",
  "set bytea_output = 'hex'",
  "set xmloption = 'content'",
  "set xmlbinary = 'base64'",
  "set standard_conforming_strings = on",
  "set lc_monetary = 'C'",
  // The catalog's queries are large and read few rows: compiling them took 3.4 s of 3.5 s.
  "set jit = off",
];

/** What a restore sets before it runs captured definitions. */
export const applySettings: readonly string[] = [
  ...captureSettings,
  "set check_function_bodies = off",
  "set default_tablespace = ''",
  "set default_table_access_method = heap",
  "set default_toast_compression = pglz",
  "set row_security = off",
  "set statement_timeout = 0",
  "set client_min_messages = warning",
];
