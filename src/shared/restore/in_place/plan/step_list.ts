/** Steps and notes of a plan as they are found; each phase keeps their order. */
import type { Definition } from "../../../schema/capture_format.ts";
import type { ChangePhase, DefinitionNote, DefinitionPlan, DefinitionStep } from "../change_format.ts";
import { changePhases } from "../change_format.ts";

type Named = Pick<Definition, "identity" | "kind">;

export type StepDraft =
  & Omit<DefinitionStep, "key" | "identity" | "kind" | "otherwise" | "empties" | "gone" | "locks">
  & Partial<Pick<DefinitionStep, "otherwise" | "empties" | "gone" | "locks">>;

export class StepList {
  readonly #steps: DefinitionStep[] = [];
  readonly #keys = new Set<string>();
  readonly #notes: DefinitionNote[];

  constructor(notes: readonly DefinitionNote[]) {
    this.#notes = [...notes];
  }

  /** Nothing where it has no statements and nothing goes. */
  add({ identity, kind }: Named, draft: StepDraft): void {
    if (draft.statements.length === 0 && (draft.gone ?? []).length === 0) return;
    const key = this.#freeKey(`${draft.phase} ${draft.action} ${identity}`);
    this.#keys.add(key);
    this.#steps.push({ otherwise: [], empties: [], gone: [], locks: null, ...draft, key, identity, kind });
  }

  #freeKey(wanted: string): string {
    let key = wanted;
    for (let count = 2; this.#keys.has(key); count++) key = `${wanted} (${count})`;
    return key;
  }

  keep({ identity, kind }: Named, reason: string): void {
    this.#notes.push({ identity, kind, action: "keep", reason });
  }

  refuse({ identity, kind }: Named, reason: string): void {
    this.#notes.push({ identity, kind, action: "refuse", reason });
  }

  plan(): DefinitionPlan {
    const ofPhase = (phase: ChangePhase) => this.#steps.filter((step) => step.phase === phase);
    return {
      steps: changePhases.flatMap(ofPhase),
      kept: this.#notes.filter((note) => note.action === "keep"),
      refused: this.#notes.filter((note) => note.action === "refuse"),
    };
  }
}
