/** One leg at a time in an isolate: two would share its CPU and its memory, whose limits a leg is planned for. */
export interface LegSlot {
  /** True when the slot was free; the caller leaves it again, whatever happens. */
  enter(): boolean;
  leave(): void;
}

export function createLegSlot(): LegSlot {
  let taken = false;
  return {
    enter() {
      if (taken) return false;
      taken = true;
      return true;
    },
    leave() {
      taken = false;
    },
  };
}
