import { describe, expect, it } from "vitest";
import { type Drawn, timelinePicture } from "../../src/cli/timeline_picture.ts";

const at = (text: string) => Date.parse(text);
const drawn = (more: Partial<Drawn>): Drawn => ({ windows: [], gaps: [], fulls: [], ...more });
/** The cells of the line that begins so. */
const line = (lines: readonly string[], label: string) =>
  lines.find((each) => each.startsWith(label))?.slice(label.length + 1) ?? "";

describe("the picture of a timeline", () => {
  it("has a line an hour with a cell a minute where it spans little", () => {
    const lines = timelinePicture(
      drawn({
        windows: [{ from: at("2024-01-09T12:10:00Z"), to: at("2024-01-09T13:05:30Z") }],
        fulls: [at("2024-01-09T12:10:00Z")],
      }),
      80,
    );
    expect(line(lines, "2024-01-09 12h")).toBe("·".repeat(10) + "●" + "█".repeat(49));
    expect(line(lines, "2024-01-09 13h")).toBe("█".repeat(5) + "▒" + "·".repeat(54));
    expect(lines.at(-1)).toBe("● full backup  █ every moment  ▒ in part  × gap  · nothing");
  });

  it("has a line a day with a cell a quarter of an hour where it spans more", () => {
    const lines = timelinePicture(
      drawn({
        windows: [
          { from: at("2024-01-08T00:00:00Z"), to: at("2024-01-09T06:00:00Z") },
          { from: at("2024-01-09T12:00:00Z"), to: at("2024-01-10T00:00:00Z") },
        ],
        gaps: [{ from: at("2024-01-09T06:00:00Z"), to: at("2024-01-09T12:00:00Z") }],
        fulls: [at("2024-01-08T00:00:00Z"), at("2024-01-09T12:00:00Z")],
      }),
      120,
    );
    expect(line(lines, "2024-01-08")).toBe("●" + "█".repeat(95));
    expect(line(lines, "2024-01-09")).toBe("█".repeat(24) + "×".repeat(24) + "●" + "█".repeat(47));
  });

  it("never shows a cell as covered of which a second is not", () => {
    const gap = { from: at("2024-01-09T12:30:01Z"), to: at("2024-01-09T12:30:02Z") };
    const lines = timelinePicture(
      drawn({
        windows: [
          { from: at("2024-01-09T12:00:00Z"), to: gap.from },
          { from: gap.to, to: at("2024-01-09T13:00:00Z") },
        ],
        gaps: [gap],
      }),
      80,
    );
    expect(line(lines, "2024-01-09 12h")).toBe("█".repeat(30) + "▒" + "█".repeat(29));
  });

  it.each([20, 24, 40, 79, 200])("fits into %i columns", (columns) => {
    for (const hours of [3, 300]) {
      const from = at("2024-01-09T12:00:00Z");
      const to = from + hours * 3_600_000;
      const lines = timelinePicture(drawn({ windows: [{ from, to }], fulls: [from] }), columns);
      for (const each of lines) expect(each.length, each).toBeLessThanOrEqual(columns);
    }
  });

  it("of a long time ends with its newest lines, and says how many backups lie before them", () => {
    const day = 86_400_000;
    const fulls = Array.from({ length: 100 }, (_, index) => at("2024-01-01T00:00:00Z") + index * day);
    const lines = timelinePicture(drawn({ fulls }), 80);
    expect(lines[0]).toBe("earlier: 60 full backups");
    expect(lines.filter((each) => each.includes("●·"))).toHaveLength(40);
  });

  it("is empty where there is nothing", () => {
    expect(timelinePicture(drawn({}), 80)).toEqual([]);
  });
});
