import type { Isolate } from "./isolate.ts";

/**
 * When to kill an isolate of a function: at once, as its next request reaches it, as its next response leaves it, or
 * right behind the nth line (counted in each isolate) of its output that contains `text`; its thread stands still there.
 */
export type KillMoment =
  | { readonly at: "now" | "request" | "response" }
  | { readonly at: "line"; readonly text: string; readonly nth: number };

/** An order to kill one isolate, once. `fired` names the isolate that it hit. */
export interface KillOrder {
  readonly id: string;
  readonly function: string;
  readonly moment: KillMoment;
  fired: { readonly isolate: string; readonly at: string } | null;
}

/** Orders kept; older ones are forgotten. */
const ordersKept = 100;

/** Kills isolates at named moments, for tests. Does nothing until an order is given. */
export class KillSwitch {
  readonly #orders = new Map<string, KillOrder>();
  readonly #isolates = new Set<Isolate>();
  readonly #arming = new WeakMap<Isolate, Promise<void>>();

  /** Resolves once every running isolate knows the order. */
  async order(name: string, moment: KillMoment): Promise<KillOrder> {
    const order: KillOrder = { id: crypto.randomUUID(), function: name, moment, fired: null };
    const oldest = this.#orders.keys().next();
    if (this.#orders.size >= ordersKept && !oldest.done) this.#orders.delete(oldest.value);
    this.#orders.set(order.id, order);
    const running = [...this.#isolates].filter((isolate) => isolate.function === name);
    if (moment.at === "now") {
      const victim = running.find((isolate) => !isolate.idle) ?? running.find((isolate) => isolate.used) ?? running[0];
      if (victim !== undefined) this.#fire(order, victim);
    } else if (moment.at === "line") {
      await Promise.all(running.map((isolate) => isolate.haltAt(moment.text, moment.nth)));
    }
    return order;
  }

  find(id: string): KillOrder | undefined {
    return this.#orders.get(id);
  }

  /** Takes the order back if it has not fired. */
  async cancel(id: string): Promise<void> {
    const order = this.#orders.get(id);
    this.#orders.delete(id);
    if (order?.moment.at === "line" && order.fired === null) await this.#disarm(order.function);
  }

  started(isolate: Isolate): void {
    this.#isolates.add(isolate);
    isolate.ended.then(() => this.#isolates.delete(isolate));
    const { moment } = this.#waiting(isolate, "line") ?? {};
    if (moment?.at === "line") this.#arming.set(isolate, isolate.haltAt(moment.text, moment.nth));
  }

  /** Resolves once the isolate knows an order that was there before it. */
  async armed(isolate: Isolate): Promise<void> {
    await this.#arming.get(isolate);
  }

  requested(isolate: Isolate): void {
    this.#fire(this.#waiting(isolate, "request"), isolate);
  }

  responded(isolate: Isolate): void {
    this.#fire(this.#waiting(isolate, "response"), isolate);
  }

  halted(isolate: Isolate): void {
    const order = this.#waiting(isolate, "line");
    // Two isolates can reach the line at once: the second is killed as well rather than left standing.
    if (order === undefined) return isolate.kill("killed");
    this.#fire(order, isolate);
    this.#disarm(order.function);
  }

  #waiting(isolate: Isolate, at: KillMoment["at"]): KillOrder | undefined {
    return [...this.#orders.values()].find((order) =>
      order.fired === null && order.function === isolate.function && order.moment.at === at
    );
  }

  #fire(order: KillOrder | undefined, isolate: Isolate): void {
    if (order === undefined) return;
    order.fired = { isolate: isolate.id, at: new Date().toISOString() };
    isolate.kill("killed");
  }

  async #disarm(name: string): Promise<void> {
    const others = [...this.#isolates].filter((isolate) => isolate.function === name && !isolate.gone);
    await Promise.all(others.map((isolate) => isolate.haltAt(null, 1)));
  }
}
