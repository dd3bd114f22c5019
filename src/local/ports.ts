import { createServer } from "node:net";

/**
 * A TCP port that was free on 127.0.0.1 a moment ago. Nothing reserves it: whoever binds it must cope with another
 * process having been quicker (try again with a new one).
 */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      const port = typeof address === "object" && address !== null ? address.port : 0;
      server.close(() => port > 0 ? resolve(port) : reject(new Error("the system gave no port")));
    });
  });
}
