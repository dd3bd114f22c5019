import { describe, expect, it } from "vitest";
import { HoldfastError } from "../../src/shared/errors.ts";
import { parseListing } from "../../src/shared/store/s3_listing.ts";
import { parseXml } from "../../src/shared/store/s3_xml.ts";
import { s3Failure } from "../../src/shared/store/s3_errors.ts";
import { pick, seeded } from "../unit/format_fixture.ts";

const bytes = (words: string) => new TextEncoder().encode(words);
const entry = (key: string, size: string) =>
  `<Contents><Key>${key}</Key><LastModified>2026-11-21T18:45:00.000Z</LastModified><ETag>&quot;ab&quot;</ETag>` +
  `<Size>${size}</Size><StorageClass>STANDARD</StorageClass></Contents>`;
const page = (inside: string) =>
  `<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">` +
  `<Name>b</Name><Prefix>p/</Prefix>${inside}</ListBucketResult>`;
const two = page(
  `<KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>true</IsTruncated>${entry("p/a", "3")}` +
    `${entry("p/b&amp;c", "0")}<NextContinuationToken>1/x=&#43;</NextContinuationToken>`,
);

function codeOf(act: () => unknown): string {
  try {
    act();
    return "no error";
  } catch (error) {
    return error instanceof HoldfastError ? error.code : String(error);
  }
}

describe("a listing from S3", () => {
  it("gives names, sizes and how it goes on", () => {
    expect(parseListing(bytes(two), "p/")).toEqual({
      objects: [{ name: "p/a", size: 3 }, { name: "p/b&c", size: 0 }],
      next: "1/x=+",
    });
  });

  it("may be empty", () => {
    const empty = page("<IsTruncated>false</IsTruncated><KeyCount>0</KeyCount>");
    expect(parseListing(bytes(empty), "p/")).toEqual({ objects: [], next: null });
  });

  it.each([
    ["an error with status 200", "<Error><Code>InternalError</Code></Error>"],
    ["no word on whether it goes on", page(entry("p/a", "3"))],
    ["more to come but no token", page(`<IsTruncated>true</IsTruncated>${entry("p/a", "3")}`)],
    ["an empty token", page("<IsTruncated>true</IsTruncated><NextContinuationToken/>")],
    ["another word than true or false", page("<IsTruncated>no</IsTruncated>")],
    ["two answers to one question", page("<IsTruncated>false</IsTruncated><IsTruncated>true</IsTruncated>")],
    ["another number of names", page(`<KeyCount>2</KeyCount><IsTruncated>false</IsTruncated>${entry("p/a", "3")}`)],
    ["a name that was not asked for", page(`<IsTruncated>false</IsTruncated>${entry("q/a", "3")}`)],
    ["an entry without a size", page("<IsTruncated>false</IsTruncated><Contents><Key>p/a</Key></Contents>")],
    ["an entry without a name", page("<IsTruncated>false</IsTruncated><Contents><Size>1</Size></Contents>")],
    ["a negative size", page(`<IsTruncated>false</IsTruncated>${entry("p/a", "-3")}`)],
    ["a size that is no number", page(`<IsTruncated>false</IsTruncated>${entry("p/a", "1e9")}`)],
    ["a cut end", two.slice(0, -10)],
    ["a cut middle", two.slice(0, two.indexOf("<NextC"))],
    ["nothing", ""],
    ["two roots", "<ListBucketResult/><ListBucketResult/>"],
    ["tags that cross", "<ListBucketResult><a><b></a></b></ListBucketResult>"],
    ["a document type", `<!DOCTYPE x [<!ENTITY a "b">]>${two}`],
    ["an entity of its own", page(`<IsTruncated>false</IsTruncated>${entry("p/&a;", "3")}`)],
    ["a bare ampersand", page(`<IsTruncated>false</IsTruncated>${entry("p/a&b", "3")}`)],
    ["an inherited word as an entity", page(`<IsTruncated>false</IsTruncated>${entry("p/&toString;", "3")}`)],
    ["a letter beyond unicode", page(`<IsTruncated>false</IsTruncated>${entry("p/&#x110000;", "3")}`)],
    ["a CDATA section", page(`<IsTruncated>false</IsTruncated>${entry("p/<![CDATA[a]]>", "3")}`)],
    ["a depth without end", "<a>".repeat(5000)],
    ["elements without end", page("<x/>".repeat(60_000))],
    ["HTML of something in between", "<html><body><p>Sign in<br></body></html>"],
  ])("with %s is store_lied, never a shorter listing", (_, xml) => {
    expect(codeOf(() => parseListing(bytes(xml), "p/"))).toBe("store_lied");
  });

  it("that is no text is store_lied", () => {
    expect(codeOf(() => parseListing(new Uint8Array([0x3c, 0xff, 0xfe]), ""))).toBe("store_lied");
  });

  it("fuzzed in any way is a listing within the prefix or store_lied, and takes no longer for it", () => {
    const random = seeded(2026);
    const pieces = [
      "<",
      ">",
      "&",
      "<!--",
      "-->",
      "<a>",
      "</a>",
      "&#0;",
      "&#xD800;",
      "<?",
      '"',
      "<Key>",
      "]]>",
      "\0",
      " ",
    ];
    let refused = 0;
    for (let round = 0; round < 4000; round++) {
      let words = round % 4 === 0 ? two.slice(0, pick(random, two.length)) : two;
      for (let edits = 1 + pick(random, 3); edits > 0; edits--) {
        const at = pick(random, words.length + 1);
        words = words.slice(0, at) + (pieces[pick(random, pieces.length)] ?? "") + words.slice(at + pick(random, 4));
      }
      const code = codeOf(() => {
        for (const { name, size } of parseListing(bytes(words), "p/").objects) {
          if (!name.startsWith("p/") || !Number.isSafeInteger(size)) throw new Error("what was not asked for");
        }
      });
      expect(["no error", "store_lied"]).toContain(code);
      if (code === "store_lied") refused++;
    }
    expect(refused).toBeGreaterThan(1000);
  });

  it("made to be slow is read in linear time", () => {
    for (
      const nasty of [
        `<a ${" ".repeat(200_000)}`,
        "<!--" + "-".repeat(200_000),
        "&".repeat(200_000),
        `<a${' x=""'.repeat(50_000)}`,
      ]
    ) {
      const started = performance.now();
      expect(codeOf(() => parseXml(nasty))).toBe("store_lied");
      expect(performance.now() - started).toBeLessThan(2000);
    }
  });
});

describe("an answer of S3 that is no success", () => {
  const answer = (status: number, code: string) => ({
    status,
    headers: new Headers(),
    body: bytes(code === "" ? "" : `<Error><Code>${code}</Code><Message>AKIASECRET</Message></Error>`),
  });

  it.each(
    [
      [404, "NoSuchBucket", "store_missing"],
      [404, "NoSuchKey", "object_missing"],
      [403, "AccessDenied", "store_denied"],
      [403, "SignatureDoesNotMatch", "store_denied"],
      [403, "InvalidAccessKeyId", "store_denied"],
      [403, "RequestTimeTooSkewed", "store_denied"],
      [400, "ExpiredToken", "store_denied"],
      [403, "QuotaExceeded", "store_full"],
      [507, "", "store_full"],
      [507, "InsufficientStorage", "store_full"],
      [500, "XMinioStorageFull", "store_full"],
      [400, "RequestTimeout", "store_unreachable"],
      [400, "BadDigest", "store_unreachable"],
      [409, "OperationAborted", "store_unreachable"],
      [503, "SlowDown", "store_unreachable"],
      [429, "", "store_unreachable"],
      [301, "PermanentRedirect", "store_missing"],
      [405, "MethodNotAllowed", "store_read_only"],
      [418, "", "store_lied"],
    ] as const,
  )("%s %s is %s, without the server's words", (status, code, meaning) => {
    const error = s3Failure(answer(status, code), "write a", "s3://b");
    expect(error.code).toBe(meaning);
    expect(error.message).toContain(String(status));
    expect(error.message + error.hint).not.toContain("AKIASECRET");
  });
});
