import { describe, expect, it } from "vitest";
import { nearness, storeReasons } from "../../src/shared/store/apart.ts";

const projectUrl = "https://abcdefghijklmnopqrst.supabase.co";
const aws = (bucket: string, region: string) => `s3://${bucket}?region=${region}`;
const at = (bucket: string, endpoint: string, region = "") =>
  `s3://${bucket}?endpoint=${encodeURIComponent(endpoint)}${region === "" ? "" : `&region=${region}`}`;

describe("two stores", () => {
  it.each([
    ["Storage and S3", "supabase://backups", "s3://copies"],
    ["Storage and a folder", "supabase://backups", "file:///mnt/copies"],
    ["S3 and a folder", "s3://backups", "file:///mnt/copies"],
    ["two regions of AWS", aws("one", "eu-central-1"), aws("two", "eu-west-1")],
    ["one bucket's name at two providers", at("b", "https://s3.one.example"), at("b", "https://s3.two.example")],
    ["two regions of one host", at("one", "https://s3.one.example", "eu"), at("two", "https://s3.one.example", "us")],
  ])("fail apart: %s", (_what, first, second) => {
    expect(nearness({ first, second, projectUrl })).toBeNull();
    expect(nearness({ first: second, second: first, projectUrl })).toBeNull();
    expect(storeReasons({ first, second, projectUrl })).toEqual([]);
  });

  it.each([
    ["Storage of one project", "supabase://one", "supabase://two", /one project/],
    ["a region of AWS", aws("one", "eu-central-1"), aws("two", "eu-central-1"), /in one region/],
    ["AWS by its default region", "s3://one", aws("two", "us-east-1"), /in one region/],
    ["AWS by endpoint and by region", at("one", "https://s3.us-east-1.amazonaws.com"), "s3://two", /in one region/],
    ["one bucket", "s3://one/a", "s3://one/b", /in the bucket one/],
    ["one bucket, said to be in two regions", at("b", "https://h:1", "eu"), at("b", "https://h:1", "us"), /same/],
    ["folders", "file:///srv/backups", "file:///mnt/copies", /folders of this machine/],
    ["folders, one in the other", "file:///srv/backups", "file:///srv/backups/copies", /inside/],
    ["a project and an S3 server on its host", "supabase://b", at("b", projectUrl), /both on abcd/],
    ["one place", "supabase://b", "supabase://b", /same place/],
    ["one place in other words", "file:///srv/backups", "file:///srv/x/../backups/", /same place/],
  ])("fail together: %s", (_what, first, second, why) => {
    for (const pair of [{ first, second, projectUrl }, { first: second, second: first, projectUrl }]) {
      expect(nearness(pair)?.why).toMatch(why);
      expect(storeReasons(pair)).toHaveLength(1);
    }
  });

  it("are one where they are the same place", () => {
    const kindOf = (first: string, second: string) => nearness({ first, second, projectUrl })?.kind;
    expect(kindOf("s3://b/a", "s3://b/a/")).toBe("same");
    expect(kindOf("file:///srv/a", "file:///srv/a/b")).toBe("same");
    expect(kindOf("file:///srv/a", "file:///srv/ab")).toBe("near");
    expect(storeReasons({ first: "s3://b", second: "s3://b", projectUrl })[0]).toContain("only one store");
  });

  it("are a warning while there is only one, also where the first is not known here", () => {
    for (const first of ["s3://b", undefined]) {
      expect(storeReasons({ first, second: undefined, projectUrl: undefined })).toEqual([
        expect.stringContaining("BACKUP_SECONDARY"),
      ]);
    }
    expect(storeReasons({ first: undefined, second: "s3://b", projectUrl: undefined })).toEqual([]);
  });
});
