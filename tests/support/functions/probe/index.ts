/** Does on demand what a function may do wrong. Answers name what it saw. */

declare const EdgeRuntime: { waitUntil<T>(work: T): T };

const unloads: string[] = [];
addEventListener("beforeunload", (event) => {
  const detail: unknown = event instanceof CustomEvent ? event.detail : null;
  unloads.push(JSON.stringify(detail));
  console.log(`unload ${JSON.stringify(detail)}`);
});

function burn(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const kept: Uint8Array[] = [];

/** Burns in slices, so that other turns get their chance in between. */
async function burnInTurns(ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 20) {
    burn(Math.min(left, 20));
    await pause(1);
  }
}

Deno.serve(async (request) => {
  const url = new URL(request.url);
  const [, , action] = url.pathname.split("/");
  const number = (name: string) => Number(url.searchParams.get(name) ?? "0");
  const pid = Deno.pid;
  switch (action) {
    case "echo":
      return Response.json({
        pid,
        method: request.method,
        path: url.pathname,
        header: request.headers.get("x-probe"),
        body: await request.text(),
      }, { status: 201, headers: { "x-answer": "yes" } });
    case "environment":
      return Response.json({
        pid,
        names: Object.keys(Deno.env.toObject()),
        args: Deno.args,
        worker: typeof Reflect.get(globalThis, "Worker"),
        url: Deno.env.get("SUPABASE_URL"),
        secret: Deno.env.get("PROBE_SECRET"),
      });
    case "burn":
      burn(number("ms"));
      return Response.json({ pid });
    case "burn-in-turns":
      await burnInTurns(number("ms"));
      return Response.json({ pid });
    case "fill": {
      console.log(`filling as ${pid}`);
      for (let filled = 0; filled < number("mib"); filled += 8) {
        kept.push(new Uint8Array(8 * 1024 * 1024).fill(1));
        await pause(5);
      }
      return Response.json({ pid });
    }
    case "wait":
      await pause(number("ms"));
      return Response.json({ pid });
    case "later":
      EdgeRuntime.waitUntil((async () => {
        await pause(number("ms"));
        await fetch(url.searchParams.get("tell") ?? "", { method: "POST", body: "native" });
      })());
      return Response.json({ pid }, { status: 202 });
    case "thenable":
      EdgeRuntime.waitUntil({ then: (done: () => void) => setTimeout(done, number("ms")) });
      return Response.json({ pid }, { status: 202 });
    case "lines":
      for (let line = 1; line <= number("count"); line += 1) {
        console.log(JSON.stringify({ event: "step:line", line }));
        await fetch(url.searchParams.get("tell") ?? "", { method: "POST", body: String(line) });
      }
      return Response.json({ pid });
    case "throw":
      throw new Error("thrown on purpose");
    case "reject":
      EdgeRuntime.waitUntil(Promise.reject(new Error("rejected on purpose")));
      await pause(200);
      return Response.json({ pid });
    case "write": {
      const place = url.searchParams.get("file") ?? "";
      try {
        await Deno.writeTextFile(place, "x");
        await Deno.remove(place);
        return Response.json({ written: true });
      } catch (error) {
        return Response.json({ written: false, error: error instanceof Error ? error.name : "" });
      }
    }
    case "rename":
      try {
        Deno.renameSync("/tmp/a", "/tmp/b");
        return Response.json({ error: null });
      } catch (error) {
        return Response.json({ error: error instanceof Error ? error.name : "" });
      }
    case "unloads":
      return Response.json({ pid, unloads });
    case "noise":
      Deno.stdout.writeSync(new TextEncoder().encode("\u001enoise {\nnoise without an end"));
      EdgeRuntime.waitUntil(pause(10));
      return Response.json({ pid });
    case "html":
      return new Response("<p>", { headers: { "content-type": "text/html; charset=utf-8" } });
    default:
      return Response.json({ pid, error: "unknown action" }, { status: 404 });
  }
});
