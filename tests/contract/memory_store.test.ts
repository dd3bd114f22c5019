import { createMemoryStore } from "./memory_store.ts";
import { describeStore } from "./store.ts";

describeStore("the store of the tests in memory", () =>
  Promise.resolve({
    store: createMemoryStore(),
    nowhere: null,
    stranger: null,
    secrets: [],
    createIsAtomic: true,
    listed: 1005,
    close: () => Promise.resolve(),
  }));
